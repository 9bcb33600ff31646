package fsm_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// restore plays a backup into m and returns what became of the commit.
func (m *machine) restore(b []byte) fsm.Result {
	m.t.Helper()
	m.must(fsm.RestoreBegin{ID: "r", Total: uint64(len(b))})
	for at := 0; at < len(b); at += fsm.MaxRestoreChunk {
		m.must(fsm.RestoreChunk{ID: "r", Offset: uint64(at), Data: b[at:min(len(b), at+fsm.MaxRestoreChunk)]})
	}
	return m.do(fsm.RestoreCommit{ID: "r", SHA256: sha256.Sum256(b), Caller: muster.Caller{Actor: "ip:1.2.3.4"}})
}

// TestRestoreElsewhere: a backup of another cluster, whose lease ids name other
// things here, and whose epoch is ahead.
func TestRestoreElsewhere(t *testing.T) {
	there := newMachine(t)
	there.raw(fsm.Epoch{ClusterID: "there"})
	there.must(fsm.Register{Instance: web("a")})
	there.must(fsm.Register{Instance: web("b")})
	sharedThere := there.must(fsm.GrantLease{TTL: muster.TTL(time.Minute), Name: "host"}).Lease.ID
	there.must(fsm.Register{Instance: with(web("c"), func(i *muster.Instance) { i.TTL, i.LeaseID = 0, sharedThere })})
	there.must(fsm.Member{ID: "n9", Boot: 9})
	if r := there.restore(snapshotOf(t, there.fsm)); r.Err != nil {
		t.Fatal(r.Err)
	}
	backup := snapshotOf(t, there.fsm)

	rec := &recorder{}
	here := newMachine(t, rec)
	here.raw(fsm.Epoch{ClusterID: "here"})
	here.must(fsm.Register{Instance: web("a")})               // the same id, of the same instance
	here.must(fsm.Register{Instance: instance("db", "x")})    // the same id, of another
	here.must(fsm.GrantLease{TTL: muster.TTL(time.Minute)})   // the same id, another shared lease
	here.must(fsm.Member{ID: "n1", Boot: 1})                  // stays
	here.must(fsm.Register{Instance: instance("db", "past")}) // the backup has nothing there
	before := here.fsm.Index()
	_, changed := here.fsm.Watch(muster.ServiceKey{Namespace: "default", Service: "db"})
	if r := here.restore(backup); r.Err != nil {
		t.Fatal(r.Err)
	}

	index := here.fsm.Index()
	if epoch, _ := muster.SplitIndex(index); epoch != 2 || index <= before || here.fsm.Floor() != index {
		t.Errorf("epoch %d, index %d, floor %d", epoch, index, here.fsm.Floor())
	}
	if here.fsm.ClusterID() != "here" || here.fsm.MemberBoot("n1") != 1 || here.fsm.MemberBoot("n9") != 0 {
		t.Error("the cluster's own id or members did not stay")
	}
	if here.fsm.View(muster.ServiceKey{Namespace: "default", Service: "db"}) != nil || !isClosed(changed) {
		t.Error("what the backup lacks is still there, or its watchers sleep")
	}
	v := here.fsm.View(webKey)
	if len(v.Instances) != 3 || v.Index != index {
		t.Fatalf("got %d instances at %d", len(v.Instances), v.Index)
	}
	a, b, c := v.Instances[0], v.Instances[1], v.Instances[2]
	if a.LeaseID != muster.MakeLeaseID(2, 0) {
		t.Errorf("the lease of the same instance has a new id %s", a.LeaseID)
	}
	if b.LeaseID == muster.MakeLeaseID(3, 0) || c.LeaseID == sharedThere || b.LeaseID == c.LeaseID {
		t.Errorf("leases %s and %s keep ids that named other things here", b.LeaseID, c.LeaseID)
	}
	for _, i := range v.Instances {
		l, ok := here.fsm.Lease(i.LeaseID)
		if !ok || len(l.Instances) != 1 || l.Instances[0].ID != i.ID || l.Generation != index || i.ModifyIndex != index || i.CreateIndex != index {
			t.Errorf("%s: lease %+v, modified %d", i.ID, l, i.ModifyIndex)
		}
	}
	if change := rec.last(t); !change.Reset || change.Index != index || len(change.Entries) > 0 || len(change.Leases) > 0 {
		t.Errorf("listeners were told %+v", change)
	}
	next := here.must(fsm.Register{Instance: web("d")})
	if next.Instance.LeaseID.Index() != next.Index || next.Index != index+1 {
		t.Errorf("after the restore: index %d, lease %s", next.Index, next.Instance.LeaseID)
	}
	fresh := reload(t, snapshotOf(t, here.fsm))
	if !bytes.Equal(snapshotOf(t, fresh), snapshotOf(t, here.fsm)) {
		t.Error("the restored state does not survive a snapshot")
	}
}

// TestRestoreAmongOthers: what stands beside a commit in its entry, and after it
// in its batch, counts.
func TestRestoreAmongOthers(t *testing.T) {
	m := newMachine(t, &recorder{})
	m.must(fsm.Register{Instance: web("a")})
	b := snapshotOf(t, m.fsm)
	m.must(fsm.RestoreBegin{ID: "r", Total: uint64(len(b))})
	results := m.apply(
		fsm.Register{Instance: web("b")},
		fsm.RestoreChunk{ID: "r", Data: b},
		fsm.RestoreCommit{ID: "r", SHA256: sha256.Sum256(b)},
		fsm.Register{Instance: web("c")},
		fsm.Register{Instance: instance("db", "x")},
	)
	if !errors.Is(results[0].Err, muster.CodeCatchingUp) || results[2].Err != nil || !results[3].Created {
		t.Fatalf("got %+v", results)
	}
	v := m.fsm.View(webKey)
	if len(v.Instances) != 2 || v.Index != muster.MakeIndex(1, 3) || v.Find("c").LeaseID != muster.MakeLeaseID(v.Index, 3) {
		t.Errorf("got %s", v.JSON())
	}
	if m.fsm.View(muster.ServiceKey{Namespace: "default", Service: "db"}) == nil {
		t.Error("what follows the commit is not there")
	}
}

// TestRestoreRefusals: what is not a whole backup changes nothing.
func TestRestoreRefusals(t *testing.T) {
	m := newMachine(t)
	m.must(fsm.Register{Instance: web("a")})
	good := snapshotOf(t, m.fsm)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	newer := bytes.Clone(good)
	newer[8] = 9
	for _, test := range []struct {
		name string
		b    []byte
		says string
	}{
		{"flipped bit", flipped, "checksum"},
		{"cut short", good[:len(good)-1], "cut short"},
		{"too long", append(bytes.Clone(good), 0), "follow the end"},
		{"newer format", newer, "upgrade"},
		{"something else", []byte("{}{}{}{}{}{}{}{}"), "not a Muster snapshot"},
	} {
		t.Run(test.name, func(t *testing.T) {
			view := m.fsm.View(webKey)
			r := m.restore(test.b)
			if !errors.Is(r.Err, muster.CodeMalformedRequest) || !strings.Contains(r.Err.Detail, test.says) {
				t.Errorf("got %v, want %q", r.Err, test.says)
			}
			f, err := fsm.New(fsm.Config{})
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Restore(io.NopCloser(bytes.NewReader(test.b))); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("as a snapshot: %v, want %q", err, test.says)
			}
			if m.fsm.View(webKey) != view {
				t.Error("the state has changed")
			}
			m.must(fsm.Register{Instance: web("a")})
		})
	}
	if r := m.do(fsm.RestoreBegin{ID: "r", Total: fsm.MaxRestoreBytes + 1}); !errors.Is(r.Err, muster.CodeBodyTooLarge) {
		t.Errorf("too large: %v", r.Err)
	}
}

// TestRestoreEpochs: each restore is an epoch of its own.
func TestRestoreEpochs(t *testing.T) {
	m := newMachine(t)
	m.must(fsm.Register{Instance: web("a")})
	last := m.fsm.Index()
	for range 3 {
		if r := m.restore(snapshotOf(t, m.fsm)); r.Err != nil || r.Index <= last {
			t.Fatalf("at %d: %+v", last, r)
		}
		last = m.fsm.Index()
	}
	if epoch, _ := muster.SplitIndex(last); epoch != 3 {
		t.Errorf("epoch %d after 3 restores", epoch)
	}
}

// TestRestoreOfAnOldBackup: a backup of epochs ago does not take the index back.
func TestRestoreOfAnOldBackup(t *testing.T) {
	m := newMachine(t)
	m.must(fsm.Register{Instance: web("a")})
	old := snapshotOf(t, m.fsm)
	for range 2 {
		m.restore(snapshotOf(t, m.fsm))
	}
	last := m.fsm.Index()
	if r := m.restore(old); r.Err != nil || r.Index <= last || m.fsm.Index() <= last {
		t.Errorf("the index went back from %d to %d: %+v", last, m.fsm.Index(), r)
	}
}

// TestTombstonesSurvive: what was deregistered before a snapshot is remembered after
// it, so that a late retry of its registration does not bring it back.
func TestTombstonesSurvive(t *testing.T) {
	m := newMachine(t)
	inst := web("a")
	inst.Incarnation = 5
	m.must(fsm.Register{Instance: inst})
	m.must(fsm.Deregister{Key: key("web", "a")})
	m.fsm = reload(t, snapshotOf(t, m.fsm))
	if r := m.do(fsm.Register{Instance: inst}); r.Err == nil || !errors.Is(r.Err, muster.CodeFenced) {
		t.Errorf("a retry of before the snapshot was not fenced: %+v", r)
	}
	if r := m.do(fsm.Deregister{Key: key("web", "a")}); r.Err != nil {
		t.Errorf("deregistered again after the snapshot: %v", r.Err)
	}
}

// TestStagingSurvives: a restore goes on after a node was restored from a
// snapshot that was taken in its middle.
func TestStagingSurvives(t *testing.T) {
	m := newMachine(t)
	m.must(fsm.Register{Instance: web("a")})
	b := snapshotOf(t, m.fsm)
	m.must(fsm.RestoreBegin{ID: "r", Total: uint64(len(b))})
	m.must(fsm.RestoreChunk{ID: "r", Data: b[:50]})
	m.fsm = reload(t, snapshotOf(t, m.fsm))
	m.must(fsm.RestoreChunk{ID: "r", Offset: 50, Data: b[50:]})
	if r := m.do(fsm.RestoreCommit{ID: "r", SHA256: sha256.Sum256(b)}); r.Err != nil {
		t.Error(r.Err)
	}
}

// sink is a raft.SnapshotSink in memory.
type sink struct {
	bytes.Buffer
	fail              error
	closed, cancelled int
}

func (s *sink) ID() string    { return "sink" }
func (s *sink) Close() error  { s.closed++; return nil }
func (s *sink) Cancel() error { s.cancelled++; return nil }

func (s *sink) Write(b []byte) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	return s.Buffer.Write(b)
}

// TestSnapshotIsOneIndex: what is applied after a snapshot was taken is not in
// it, whatever it touches.
func TestSnapshotIsOneIndex(t *testing.T) {
	m := newMachine(t)
	if err := m.fsm.Restore(io.NopCloser(bytes.NewReader(sampleSnapshot(t)))); err != nil {
		t.Fatal(err)
	}
	m.next = 100
	m.must(fsm.RestoreAbort{ID: "r1"})
	m.must(fsm.Register{Instance: web("e")})
	want := snapshotOf(t, m.fsm)
	snap, err := m.fsm.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	m.must(fsm.Register{Instance: web("e")})
	m.must(fsm.Register{Instance: web("f")})
	m.must(fsm.Deregister{Key: key("web", "a")})
	m.must(fsm.Register{Instance: instance("db", "x")})
	m.must(fsm.Member{ID: "n1", Boot: 8})
	m.must(fsm.SetOverride{Key: key("web", "c"), Override: muster.Override{Status: muster.StatusMaintenance}})
	m.must(fsm.SetOverride{Key: key("web", "d"), Override: muster.Override{Status: muster.StatusMaintenance}})
	var out sink
	if err := snap.Persist(&out); err != nil || out.closed != 1 {
		t.Fatalf("Persist: %v, closed %d times", err, out.closed)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("got %q\nwant %q", out.Bytes(), want)
	}
	full := &sink{fail: io.ErrShortWrite}
	if err := snap.Persist(full); !errors.Is(err, io.ErrShortWrite) || full.cancelled != 1 {
		t.Errorf("Persist on a full disk: %v, cancelled %d times", err, full.cancelled)
	}
	snap.Release()
}

// TestHash: equal states have equal hashes, others have not.
func TestHash(t *testing.T) {
	a, b := newMachine(t), newMachine(t)
	for range 3 {
		l := a.entry(fsm.Register{Instance: web("a")}, fsm.Register{Instance: web("b")})
		a.fsm.Apply(l)
		sumA, _ := a.fsm.Hash()
		if sumB, _ := b.fsm.Hash(); sumA == sumB {
			t.Error("equal hashes of states that differ")
		}
		b.fsm.Apply(l)
		sumA, indexA := a.fsm.Hash()
		if sumB, indexB := b.fsm.Hash(); sumA != sumB || indexA != indexB || indexA != l.Index {
			t.Errorf("at %d: %x at %d, %x at %d", l.Index, sumA, indexA, sumB, indexB)
		}
	}
}
