//go:build nextlevel

package fsm_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/muster-registry/muster/fsm"
)

// TestNextLevel: the operation of the next level is refused until the cluster has
// reached it, and then written in the place of the old one, to the same effect; the
// level is part of snapshots, and a backup of it is refused by a cluster below.
func TestNextLevel(t *testing.T) {
	const newest = 0x7f
	old, m := newMachine(t), newMachine(t)
	op := fsm.Encode(fsm.Register{Instance: web("a")})
	early := bytes.Clone(op)
	early[0] = newest
	if b := m.fsm.Pack([][]byte{early}, epoch2026); bytes.Contains(b, early) || !bytes.Contains(b, []byte("until all its nodes are upgraded")) {
		t.Errorf("packed before its time: %q", b)
	}
	if l := m.entry(fsm.Register{Instance: web("a")}); !bytes.Contains(l.Data, op) {
		t.Errorf("at level 1 a registration is not what it was: %q", l.Data)
	}
	m = newMachine(t)
	m.must(fsm.Raise{Term: 1, Level: 2})
	old.must(fsm.Raise{Term: 9, Level: 2}) // of another term: takes an index, and nothing else
	if l := m.entry(fsm.Register{Instance: web("a")}); !bytes.Contains(l.Data, early) || bytes.Contains(l.Data, op) {
		t.Errorf("at level 2 a registration is what it was: %q", l.Data)
	}
	m.next--
	m.must(fsm.Register{Instance: web("a")})
	old.must(fsm.Register{Instance: web("a")})
	if a, b := m.fsm.View(webKey).JSON(), old.fsm.View(webKey).JSON(); !bytes.Equal(a, b) {
		t.Errorf("the new registration makes\n%s\nthe old\n%s", a, b)
	}

	backup := snapshotOf(t, m.fsm)
	again := newMachine(t)
	if err := again.fsm.Restore(io.NopCloser(bytes.NewReader(backup))); err != nil || again.fsm.FeatureLevel() != 2 {
		t.Errorf("restored to level %d: %v", again.fsm.FeatureLevel(), err)
	}
	if got := old.restore(backup).Err; got == nil || !strings.Contains(got.Error(), "feature level 2") {
		t.Errorf("a cluster of level 1 took a backup of level 2: %v", got)
	}
	if got := m.restore(snapshotOf(t, old.fsm)).Err; got != nil || m.fsm.FeatureLevel() != 2 {
		t.Errorf("a backup of level 1 into a cluster of level 2: %v, level %d", got, m.fsm.FeatureLevel())
	}
}
