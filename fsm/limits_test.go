package fsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// fill applies n operations, many in an entry, and returns the last result.
func (m *machine) fill(n int, op func(n int) fsm.Op) fsm.Result {
	m.t.Helper()
	var last fsm.Result
	for from := 0; from < n; from += fsm.MaxOps {
		var ops []fsm.Op
		for k := from; k < min(n, from+fsm.MaxOps); k++ {
			ops = append(ops, op(k))
		}
		results := m.raw(ops...)
		last = decoded(m.t, results[len(results)-1])
		if last.Err != nil {
			m.t.Fatalf("operation %d: %v", min(n, from+fsm.MaxOps), last.Err)
		}
	}
	return last
}

func TestInstanceQuota(t *testing.T) {
	m := newMachine(t)
	id := func(n int) string { return fmt.Sprintf("i%05d", n) }
	m.fill(muster.MaxInstances, func(n int) fsm.Op { return fsm.Register{Instance: web(id(n))} })
	if r := m.do(fsm.Register{Instance: web("more")}); !errors.Is(r.Err, muster.CodeQuotaExceeded) {
		t.Errorf("one more: %v", r.Err)
	}
	m.must(fsm.Register{Instance: with(web(id(3)), func(i *muster.Instance) { i.Version = "2" })})
	m.must(fsm.Register{Instance: instance("db", "more")})
	m.must(fsm.Deregister{Key: key("web", id(0))})
	m.must(fsm.Register{Instance: web("more")})
	if n := len(m.fsm.View(webKey).Instances); n != muster.MaxInstances {
		t.Errorf("%d instances", n)
	}
}

func TestServiceQuota(t *testing.T) {
	m := newMachine(t)
	name := func(n int) string { return fmt.Sprintf("s%05d", n) }
	m.fill(muster.MaxServices, func(n int) fsm.Op { return fsm.Register{Instance: instance(name(n), "a")} })
	if r := m.do(fsm.Register{Instance: web("a")}); !errors.Is(r.Err, muster.CodeQuotaExceeded) {
		t.Errorf("one more: %v", r.Err)
	}
	if m.fsm.View(webKey) != nil {
		t.Error("a rejected registration left its service behind")
	}
	m.must(fsm.Register{Instance: instance(name(7), "b")})
	m.must(fsm.Deregister{Key: key(name(0), "a")})
	m.must(fsm.Register{Instance: web("a")})
	if r := m.do(fsm.Register{Instance: instance(name(0), "a")}); !errors.Is(r.Err, muster.CodeQuotaExceeded) {
		t.Errorf("a service that was: %v", r.Err)
	}
}

// TestServiceTombstones: the oldest service without instances is forgotten, and
// the floor rises to its index.
func TestServiceTombstones(t *testing.T) {
	const most = 10_000
	m := newMachine(t)
	name := func(n int) string { return fmt.Sprintf("s%05d", n) }
	first := muster.ServiceKey{Namespace: "default", Service: name(0)}
	m.fill(1, func(n int) fsm.Op { return fsm.Register{Instance: instance(name(n), "a")} })
	m.fill(1, func(n int) fsm.Op { return fsm.Deregister{Key: key(name(n), "a")} })
	for n := 1; n < most; n += 1000 {
		k := min(1000, most-n)
		m.fill(k, func(i int) fsm.Op { return fsm.Register{Instance: instance(name(n+i), "a")} })
		m.fill(k, func(i int) fsm.Op { return fsm.Deregister{Key: key(name(n+i), "a")} })
	}
	v, changed := m.fsm.Watch(first)
	if v == nil || v.EmptyReason != muster.EmptyDeregistered || m.fsm.Floor() != 1 {
		t.Fatalf("the first is forgotten before its time: %v, floor %d", v, m.fsm.Floor())
	}
	m.must(fsm.Register{Instance: web("a")})
	m.must(fsm.Deregister{Key: key("web", "a")})
	if now, _ := m.fsm.Watch(first); now != nil || m.fsm.Floor() != v.Index || !isClosed(changed) {
		t.Errorf("the first is remembered: %v, floor %d, woken %t", now, m.fsm.Floor(), isClosed(changed))
	}
	if m.fsm.View(muster.ServiceKey{Namespace: "default", Service: name(1)}) == nil {
		t.Error("the second is forgotten")
	}
	// One that comes back is no tombstone any more.
	m.must(fsm.Register{Instance: instance(name(1), "a")})
	m.must(fsm.Register{Instance: instance("last", "a")})
	m.must(fsm.Deregister{Key: key("last", "a")})
	if m.fsm.View(muster.ServiceKey{Namespace: "default", Service: name(1)}) == nil || m.fsm.View(muster.ServiceKey{Namespace: "default", Service: name(2)}) == nil {
		t.Error("more are forgotten than need be")
	}
	if a := snapshotOf(t, m.fsm); !bytes.Equal(a, snapshotOf(t, reload(t, a))) {
		t.Error("a snapshot differs after it was loaded")
	}
}

// TestInstanceTombstones: 65,536 instances that are gone are remembered.
func TestInstanceTombstones(t *testing.T) {
	const most = 65_536
	m := newMachine(t)
	id := func(n int) string { return fmt.Sprintf("i%05d", n) }
	churn := func(from, n int) {
		for ; n > 0; n, from = n-1000, from+1000 {
			k := min(n, 1000)
			m.fill(k, func(i int) fsm.Op { return fsm.Register{Instance: web(id(from + i))} })
			m.fill(k, func(i int) fsm.Op { return fsm.Deregister{Key: key("web", id(from+i))} })
		}
	}
	churn(0, most)
	m.must(fsm.Deregister{Key: key("web", id(0))})
	m.must(fsm.Register{Instance: web(id(5))}) // comes back, and goes last
	m.must(fsm.Deregister{Key: key("web", id(5))})
	churn(most, 6)
	for n, known := range map[int]bool{0: false, 4: false, 5: true, 6: false, 7: true, most + 5: true} {
		r := m.do(fsm.Deregister{Key: key("web", id(n))})
		if (r.Err == nil) != known {
			t.Errorf("%s: %v, want remembered %t", id(n), r.Err, known)
		}
	}
	if a := snapshotOf(t, m.fsm); !bytes.Equal(a, snapshotOf(t, reload(t, a))) {
		t.Error("a snapshot differs after it was loaded")
	}
}

// TestJournalBound: 10,000 transitions are kept, and an answer that misses some
// says so.
func TestJournalBound(t *testing.T) {
	const most = 10_000
	m := newMachine(t)
	for k := range 2*most + 700 {
		if k == 2*most {
			m.must(fsm.Register{Instance: instance("db", "a")})
			continue
		}
		m.raw(fsm.Register{Instance: with(web("a"), func(i *muster.Instance) { i.Version = fmt.Sprint(k) })})
	}
	last := uint64(2*most + 700)
	for _, test := range []struct {
		since     uint64
		truncated bool
	}{{0, true}, {last - most - 1, true}, {last - most, false}, {last - 1, false}} {
		e := m.fsm.Events(muster.EventQuery{Since: test.since, Limit: muster.MaxEvents})
		full := len(e.Events) == muster.MaxEvents && last-test.since > muster.MaxEvents
		if e.Truncated != (test.truncated || full) || e.Events[len(e.Events)-1].Index != last {
			t.Errorf("since %d: %d events, truncated %t", test.since, len(e.Events), e.Truncated)
		}
	}
	for since, truncated := range map[uint64]bool{0: true, last - most - 1: true, last - most: false} {
		if e := m.fsm.Events(muster.EventQuery{Service: "db", Since: since}); len(e.Events) != 1 || e.Truncated != truncated {
			t.Errorf("of db since %d: %d events, truncated %t", since, len(e.Events), e.Truncated)
		}
	}
	a := snapshotOf(t, m.fsm)
	other := reload(t, a)
	if !bytes.Equal(a, snapshotOf(t, other)) {
		t.Error("a snapshot differs after it was loaded")
	}
	if e := other.Events(muster.EventQuery{Since: last - most}); len(e.Events) != muster.DefaultEventsLimit {
		t.Errorf("%d events after a snapshot", len(e.Events))
	}
}

// TestRemovedMembers: 1,024 of them are remembered.
func TestRemovedMembers(t *testing.T) {
	m := newMachine(t)
	id := func(n int) string { return fmt.Sprintf("n%d", n) }
	m.must(fsm.Member{ID: id(0), Boot: 5})
	m.fill(1025, func(n int) fsm.Op { return fsm.Member{ID: id(n), Removed: true} })
	if m.fsm.MemberRemoved(id(0)) || !m.fsm.MemberRemoved(id(1)) || !m.fsm.MemberRemoved(id(1024)) || m.fsm.MemberBoot(id(0)) != 0 {
		t.Error("not the last 1,024 are remembered")
	}
	if r := m.do(fsm.Member{ID: id(9), Boot: 7}); !errors.Is(r.Err, muster.CodeConflict) {
		t.Errorf("a removed member came back: %v", r.Err)
	}
}

// TestTooMany: what is out of bounds is refused where it is packed.
func TestTooMany(t *testing.T) {
	m := newMachine(t)
	if r := m.do(fsm.Expire{Term: 1, Leases: make([]fsm.LeaseGen, fsm.MaxLeases+1)}); !errors.Is(r.Err, muster.CodeInternal) {
		t.Errorf("too many leases: %v", r.Err)
	}
	if r := m.do(fsm.RestoreChunk{ID: "r", Data: make([]byte, fsm.MaxRestoreChunk+1)}); !errors.Is(r.Err, muster.CodeInternal) {
		t.Errorf("too large a chunk: %v", r.Err)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic on too many operations")
		}
	}()
	m.fsm.Pack(make([][]byte, fsm.MaxOps+1), m.now)
}
