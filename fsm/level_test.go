package fsm_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/fsm"
)

// TestLevelUnknown: a level above what this build knows stops it, with the words and
// the exit code of a node that is too old; and before anything of the entry is done.
func TestLevelUnknown(t *testing.T) {
	var fatal error
	f, err := fsm.New(fsm.Config{Fatal: func(err error) { fatal = err }})
	if err != nil {
		t.Fatal(err)
	}
	// Pack of a build that knows the level; this one would refuse the operation.
	raise := fsm.Encode(fsm.Raise{Term: 1, Level: fsm.KnownLevel + 1})
	entry := append([]byte{1, 2<<3 | 2, byte(len(raise))}, raise...)
	f.Apply(&raft.Log{Index: 1, Term: 1, Data: entry})
	var coded interface{ ExitCode() int }
	if fatal == nil || !strings.Contains(fatal.Error(), "upgrade this node") || !errors.As(fatal, &coded) || coded.ExitCode() != 78 {
		t.Errorf("stopped by %v, want to be told to upgrade, with exit code 78", fatal)
	}
	if f.FeatureLevel() != 1 || f.Applied() != 0 {
		t.Errorf("the level is %d after %d entries, want 1 after none", f.FeatureLevel(), f.Applied())
	}
	m := newMachine(t)
	if got := m.do(fsm.Raise{Term: 1, Level: fsm.KnownLevel + 1}); got.Err == nil {
		t.Error("Pack let a level through that this build does not know")
	}
}

// TestLevelOfTerm: a decision of another term changes nothing, and no level falls.
func TestLevelOfTerm(t *testing.T) {
	m := newMachine(t)
	if got := m.do(fsm.Raise{Term: 9, Level: fsm.KnownLevel}); got.Changed {
		t.Error("raised by a leader of another term")
	}
	m.do(fsm.Raise{Term: 1, Level: fsm.KnownLevel})
	if got := m.do(fsm.Raise{Term: 1, Level: 1}); got.Changed || m.fsm.FeatureLevel() != fsm.KnownLevel {
		t.Errorf("the level is %d, want %d", m.fsm.FeatureLevel(), fsm.KnownLevel)
	}
}
