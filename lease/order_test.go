package lease

import (
	"context"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

// hookedVoter is a voter whose term is read through a hook: what happens there
// happens between the receiver's two steps.
type hookedVoter struct {
	term     uint64
	onTerm   func()
	handlers map[string]func(context.Context, string, []byte) ([]byte, error)
}

func (v *hookedVoter) ID() string                                             { return "b" }
func (v *hookedVoter) Voters() []string                                       { return []string{"a", "b", "c"} }
func (v *hookedVoter) Leader() (string, string)                               { return "a", "" }
func (v *hookedVoter) NoteMajority(uint64, time.Time)                         {}
func (v *hookedVoter) Leases(func(Record) bool)                               {}
func (v *hookedVoter) Timers(func(Timer) bool)                                {}
func (v *hookedVoter) Find(muster.InstanceKey) (muster.LeaseID, uint64, bool) { return 0, 0, false }

func (v *hookedVoter) Decide(context.Context, uint64, Decision) (uint64, error) { return 0, nil }

func (v *hookedVoter) Call(context.Context, string, string, []byte) ([]byte, error) {
	return nil, errNoLeader()
}

func (v *hookedVoter) Handle(method string, fn func(context.Context, string, []byte) ([]byte, error)) {
	v.handlers[method] = fn
}

func (v *hookedVoter) CurrentTerm() uint64 {
	if hook := v.onTerm; hook != nil {
		v.onTerm = nil
		hook()
	}
	return v.term
}

func newHookedVoter(t *testing.T) *hookedVoter {
	v := &hookedVoter{term: 1, handlers: map[string]func(context.Context, string, []byte) ([]byte, error){}}
	k, err := New(Config{}, Deps{State: v, Log: v, Raft: v, Peers: v})
	if err != nil {
		t.Fatal(err)
	}
	k.Observe(Changes{Index: 5, Leases: []Change{{Record: Record{ID: muster.MakeLeaseID(5, 0), TTL: time.Second, Generation: 5}, Heard: true}}})
	k.table.Tick(k.now(), true)
	<-time.NewTimer(20 * time.Millisecond).C // the lease was last heard from before
	return v
}

func (v *hookedVoter) renew(t *testing.T, term uint64) bool {
	b, err := v.handlers[methodRenew](t.Context(), "a", (&renewMsg{term: term, ids: []muster.LeaseID{muster.MakeLeaseID(5, 0)}}).append(nil))
	var ack renewAck
	if err != nil || ack.parse(b) != nil {
		t.Fatal("renew:", err)
	}
	return ack.ok
}

// age is how long ago the lease was heard from in the copy for a new leader.
func (v *hookedVoter) age(t *testing.T, term uint64) (time.Duration, bool) {
	b, err := v.handlers[methodGather](t.Context(), "c", (&gatherMsg{term: term, parts: 1}).append(nil))
	var ack gatherAck
	if err != nil || ack.parse(b) != nil {
		t.Fatal("gather:", err)
	}
	if !ack.ok {
		return 0, false
	}
	return ack.shadow.Ages[0], true
}

// TestRenewMergesBeforeItChecks elects a new leader, which gathers, at the very
// moment at which the receiver reads its term: the renewal is in the copy, or is
// not acknowledged.
func TestRenewMergesBeforeItChecks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		v := newHookedVoter(t)
		var age time.Duration
		v.onTerm = func() {
			v.term = 2
			age, _ = v.age(t, 2)
			v.term = 1 // the term was read before the election
		}
		if acked := v.renew(t, 1); !acked {
			t.Fatal("a renewal of the present term was not acknowledged")
		}
		if age != 0 {
			t.Errorf("acknowledged a renewal that the new leader's copy lacks: age %v", age)
		}
		v.term = 2
		if v.renew(t, 1) {
			t.Error("acknowledged a renewal of an old term")
		}
	})
}

// TestGatherChecksBeforeItCopies acknowledges a renewal at the very moment at
// which the voter reads its term for a new leader: it is in the copy.
func TestGatherChecksBeforeItCopies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		v := newHookedVoter(t)
		v.onTerm = func() {
			if !v.renew(t, 1) {
				t.Fatal("a renewal of the present term was not acknowledged")
			}
			v.term = 2
		}
		age, ok := v.age(t, 2)
		if !ok || age != 0 {
			t.Errorf("the copy lacks a renewal that was acknowledged: age %v, ok %v", age, ok)
		}
		if _, ok := v.age(t, 3); ok {
			t.Error("copied for a leader of a term this voter has not reached")
		}
	})
}

// TestStampsAreOfOneProcess: what an earlier process of this node said, or nobody,
// is no proof of anything.
func TestStampsAreOfOneProcess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		keeper := func() *Keeper {
			v := newHookedVoter(t)
			k, err := New(Config{}, Deps{State: v, Log: v, Raft: v, Peers: v})
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		k, before := keeper(), keeper()
		const now = time.Minute
		for _, at := range []time.Duration{0, 1, now} {
			if got := k.stamped(k.stamp(at), now); got != at {
				t.Errorf("a stamp of %v: got %v", at, got)
			}
		}
		for name, stamp := range map[string]uint64{"none": 0, "of the future": k.stamp(now + 1), "another's": before.stamp(now)} {
			if at := k.stamped(stamp, now); at != never {
				t.Errorf("a stamp that is %s: got %v, want never", name, at)
			}
		}
	})
}
