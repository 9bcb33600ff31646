package fsm_test

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// sampleOps is one operation of each kind.
func sampleOps() []fsm.Op {
	full := with(web("a"), func(i *muster.Instance) {
		i.Ports, i.Meta, i.Tags = map[string]int{"metrics": 9100}, map[string]string{"team": "pay"}, []string{"canary"}
		i.Version, i.Zone, i.Incarnation, i.OnExpiry = "1.2", "eu-1a", 7, muster.ExpiryDown
		i.Checks = []muster.Check{{Type: muster.CheckHTTP, Path: "/health"}}
	})
	who := muster.Caller{Actor: "ip:10.0.0.9", Reason: "test"}
	return []fsm.Op{
		fsm.Epoch{ClusterID: "c1"},
		fsm.Register{Instance: full, Caller: who},
		fsm.Register{Instance: web("b"), Cond: muster.Condition{Absent: true}},
		fsm.Register{Instance: web("b"), Cond: muster.Condition{ModifyIndex: 3, Place: 1}},
		fsm.GrantLease{TTL: muster.TTL(10 * time.Second), Name: "host", Caller: who},
		fsm.Deregister{Key: key("web", "b"), Incarnation: 3, Caller: who},
		fsm.Suspect{Term: 1, Leases: []fsm.LeaseGen{{ID: muster.MakeLeaseID(1, 0), Generation: 1}}, Reason: "mass loss", Caller: who},
		fsm.Release{Term: 1, Leases: []muster.LeaseID{muster.MakeLeaseID(1, 0)}, Caller: who},
		fsm.SetOverride{Key: key("web", "a"), Override: muster.Override{Status: muster.StatusMaintenance, Reason: "disk", Until: epoch2026}, Caller: who},
		fsm.ClearOverride{Key: key("web", "a"), Term: 1, Until: epoch2026, Caller: who},
		fsm.Expire{Term: 1, Leases: []fsm.LeaseGen{{ID: muster.MakeLeaseID(1, 0), Generation: 1}}, Released: true, Caller: who},
		fsm.Reap{Term: 1, Targets: []fsm.ReapTarget{{Key: key("web", "a"), ModifyIndex: 1}}, Caller: who},
		fsm.RevokeLease{ID: muster.MakeLeaseID(1, 3), Caller: who},
		fsm.Member{ID: "n1", Boot: 3},
		fsm.Member{ID: "n2", Removed: true},
		fsm.RestoreBegin{ID: "r1", Total: 10, Caller: who},
		fsm.RestoreChunk{ID: "r1", Data: []byte("0123456789")},
		fsm.RestoreCommit{ID: "r1", SHA256: sha256.Sum256([]byte("0123456789")), Caller: who},
		fsm.RestoreAbort{ID: "r1"},
		fsm.Configure{Key: muster.ServiceKey{Namespace: "default", Service: "web"}, Settings: sampleSettings(), Caller: who},
		fsm.Configure{Key: muster.ServiceKey{Namespace: "default", Service: "web"}, Caller: who},
		fsm.SwitchGovernor{On: true, Caller: who},
		fsm.Raise{Term: 3, Level: 1},
		fsm.Judge{Term: 1, Caller: who, Verdicts: []fsm.Verdict{
			{Key: key("web", "a"), Life: 2, HeldUntil: epoch2026, Checks: []muster.CheckState{
				{Status: muster.StatusDown, Cause: muster.CheckTimeout, Output: "no answer in time", Latency: 7, Contested: true},
			}},
		}},
	}
}

// sampleSettings differ from the defaults everywhere.
func sampleSettings() *muster.Settings {
	return &muster.Settings{
		Strategy: muster.StrategyEWMA, ZoneThreshold: 1, MaxEjected: 2, ConsecutiveFailures: 3, FailureRate: 4,
		EjectionTime: muster.Duration(time.Second), SlowStart: muster.Duration(time.Minute), LoadFactor: 200,
	}
}

// sampleSnapshot is a snapshot with something of everything.
func sampleSnapshot(t testing.TB) []byte {
	m := newMachine(t)
	m.apply(sampleOps()[1:12]...)
	m.must(sampleOps()[1])
	m.must(fsm.Judge{Term: 1, Verdicts: []fsm.Verdict{{
		Key: key("web", "a"), Life: m.fsm.View(webKey).Find("a").ChecksFrom, HeldUntil: epoch2026.Add(time.Hour),
		Checks: []muster.CheckState{{Status: muster.StatusDown, Cause: muster.CheckTimeout, Output: "no answer in time", Latency: 7, Contested: true}},
	}}})
	m.must(fsm.Register{Instance: web("c")})
	m.must(fsm.Register{Instance: instance("db", "x")})
	m.must(fsm.Deregister{Key: key("db", "x")})
	shared := m.must(fsm.GrantLease{TTL: muster.TTL(10 * time.Second), Name: "host"}).Lease.ID
	m.must(fsm.Register{Instance: with(web("d"), func(i *muster.Instance) { i.TTL, i.LeaseID = 0, shared })})
	m.must(fsm.SetOverride{Key: key("web", "c"), Override: muster.Override{Status: muster.StatusDraining}})
	m.must(fsm.Suspect{Term: 1, Leases: []fsm.LeaseGen{{ID: shared, Generation: m.next - 2}}})
	m.must(fsm.Member{ID: "n1", Boot: 3})
	m.must(fsm.Member{ID: "n2", Removed: true})
	m.must(fsm.Configure{Key: muster.ServiceKey{Namespace: "default", Service: "db"}, Settings: sampleSettings()})
	m.must(fsm.SwitchGovernor{Caller: muster.Caller{Actor: "ip:10.0.0.9", Reason: "a drill"}})
	m.must(fsm.RestoreBegin{ID: "r1", Total: 10})
	m.must(fsm.RestoreChunk{ID: "r1", Data: []byte("01234")})
	return snapshotOf(t, m.fsm)
}

// FuzzOp: whatever an operation holds, the entry it is packed into is applied.
func FuzzOp(f *testing.F) {
	for _, op := range sampleOps() {
		f.Add(fsm.Encode(op))
	}
	f.Add([]byte{0xff, 1, 2, 3})
	f.Fuzz(func(t *testing.T, op []byte) {
		m := newMachine(t)
		m.apply(fsm.Register{Instance: web("a")}, fsm.Register{Instance: web("b")})
		for range 2 {
			l := &raft.Log{Index: m.next, Term: 1, Data: m.fsm.Pack([][]byte{op}, m.now)}
			m.next++
			results, ok := m.fsm.Apply(l).([]encoding.BinaryAppender)
			if !ok || len(results) != 1 {
				t.Fatalf("got %v", results)
			}
			readAll(t, m.fsm)
		}
		reload(t, snapshotOf(t, m.fsm))
	})
}

// FuzzEntry: a damaged entry is applied or stops the node; it never panics, and
// where it stops the node it has changed nothing.
func FuzzEntry(f *testing.F) {
	m := newMachine(f)
	for _, op := range sampleOps() {
		f.Add(m.entry(op, fsm.Register{Instance: web("z")}).Data)
	}
	f.Add([]byte{})
	f.Add([]byte{0x81, 7})
	f.Fuzz(func(t *testing.T, data []byte) {
		stopped := 0
		s, err := fsm.New(fsm.Config{Fatal: func(error) { stopped++ }})
		if err != nil {
			t.Fatal(err)
		}
		before := snapshotOf(t, reload(t, sampleSnapshot(t)))
		if err := s.Restore(io.NopCloser(bytes.NewReader(before))); err != nil {
			t.Fatal(err)
		}
		response := s.Apply(&raft.Log{Index: 1000, Term: 1, Data: data})
		if err, failed := response.(error); failed != (stopped == 1) {
			t.Fatalf("response %v, stopped %d times", err, stopped)
		} else if failed && !bytes.Equal(snapshotOf(t, s), before) {
			t.Fatalf("an entry that could not be applied changed the state: %v", err)
		}
		readAll(t, s)
	})
}

// FuzzSnapshot: a damaged snapshot is refused or read, by raft's way and by
// that of a backup; what was read can be written and read again.
func FuzzSnapshot(f *testing.F) {
	f.Add(sampleSnapshot(f))
	f.Add(snapshotOf(f, newMachine(f).fsm))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = reseal(b)
		s, err := fsm.New(fsm.Config{})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Restore(io.NopCloser(bytes.NewReader(b)))
		if err == nil {
			readAll(t, s)
			once := snapshotOf(t, s)
			if again := snapshotOf(t, reload(t, once)); !bytes.Equal(once, again) {
				t.Fatalf("written as\n%q and then as\n%q", once, again)
			}
		}
		if len(b) == 0 {
			return
		}
		m := newMachine(t)
		m.must(fsm.Register{Instance: web("a")})
		m.must(fsm.RestoreBegin{ID: "r", Total: uint64(len(b))})
		for at := 0; at < len(b); at += fsm.MaxRestoreChunk {
			m.must(fsm.RestoreChunk{ID: "r", Offset: uint64(at), Data: b[at:min(len(b), at+fsm.MaxRestoreChunk)]})
		}
		r := m.do(fsm.RestoreCommit{ID: "r", SHA256: sha256.Sum256(b)})
		if (r.Err != nil) != (err != nil) && err != nil {
			t.Fatalf("as a snapshot: %v, as a backup: %v", err, r.Err)
		}
		readAll(t, m.fsm)
		m.must(fsm.Register{Instance: web("b")})
		reload(t, snapshotOf(t, m.fsm))
	})
}

// FuzzResult: a damaged result gives an error, and one that can be read is read
// the same by everybody.
func FuzzResult(f *testing.F) {
	m := newMachine(f)
	for _, op := range sampleOps()[1:] {
		b, err := m.raw(op)[0].AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := fsm.DecodeResult(b)
		if err != nil && (r.Instance != nil || r.Err != nil) {
			t.Fatalf("got %+v beside %v", r, err)
		}
	})
}

// readAll reads what readers read.
func readAll(t testing.TB, f *fsm.FSM) {
	for v := range f.Views() {
		if len(v.JSON()) == 0 {
			t.Fatal("a view without JSON")
		}
	}
	f.Services("", "")
	f.Events(muster.EventQuery{})
	for l := range f.Leases {
		f.Lease(l.ID)
	}
}

// reseal corrects the checksums of a snapshot, so that fuzzing comes past them.
func reseal(b []byte) []byte {
	b = bytes.Clone(b)
	for rest := b[min(len(b), 12):]; len(rest) >= 9; {
		size := int(binary.LittleEndian.Uint32(rest[1:]))
		if size < 0 || size > len(rest)-9 {
			break
		}
		sum := crc32.Checksum(rest[:5+size], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(rest[5+size:], sum)
		rest = rest[9+size:]
	}
	return b
}
