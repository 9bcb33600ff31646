package lease_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/lease"
)

// rig is one keeper that leads a cluster of one, with a log whose outcomes the
// test chooses.
type rig struct {
	*lease.Keeper
	t      *testing.T
	asked  chan lease.Decision
	answer chan func(d lease.Decision) (uint64, error)
	depose context.CancelFunc
	mu     sync.Mutex    // guards off and others
	others []string      // voters, none of which answers
	later  atomic.Uint64 // by how much raft's term is above the session's

	apply  sync.Mutex // held while an entry is applied
	index  uint64
	leases []lease.Record
	timers []lease.Timer
	off    bool // the governor
}

func (r *rig) ID() string { return "a" }
func (r *rig) Voters() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{"a"}, r.others...)
}
func (r *rig) Leader() (string, string)             { return "a", "" }
func (r *rig) CurrentTerm() uint64                  { return 1 + r.later.Load() }
func (r *rig) NoteMajority(uint64, time.Time)       {}
func (r *rig) GovernorOn() bool                     { r.mu.Lock(); defer r.mu.Unlock(); return !r.off }
func (r *rig) GovernorOnFor(muster.ServiceKey) bool { return true }

func (r *rig) Leases(yield func(lease.Record) bool) {
	for _, l := range r.leases {
		if !yield(l) {
			return
		}
	}
}

func (r *rig) Timers(yield func(lease.Timer) bool) {
	for _, t := range r.timers {
		if !yield(t) {
			return
		}
	}
}

func (r *rig) Find(muster.InstanceKey) (muster.LeaseID, uint64, bool) { return 0, 0, false }

func (r *rig) Handle(string, func(context.Context, string, []byte) ([]byte, error)) {}

func (r *rig) Call(context.Context, string, string, []byte) ([]byte, error) {
	return nil, errors.New("alone")
}

// Decide asks the test.
func (r *rig) Decide(ctx context.Context, _ uint64, d lease.Decision) (uint64, error) {
	select {
	case r.asked <- d:
	case <-ctx.Done():
		return 0, muster.CodeNoLeader
	}
	select {
	case f := <-r.answer:
		return f(d)
	case <-ctx.Done():
		return 0, muster.Errorf(muster.CodeOutcomeUnknown, "deposed")
	}
}

// rigged runs fn in virtual time with a keeper that leads n leases of that TTL.
func rigged(t *testing.T, n int, ttl time.Duration, fn func(r *rig), timers ...lease.Timer) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, asked: make(chan lease.Decision), answer: make(chan func(lease.Decision) (uint64, error)), timers: timers}
		var err error
		if r.Keeper, err = lease.New(lease.Config{}, lease.Deps{State: r, Log: r, Raft: r, Peers: r, Switches: r}); err != nil {
			t.Fatal(err)
		}
		var c lease.Changes
		for range n {
			r.index++
			rec := lease.Record{
				ID: muster.MakeLeaseID(r.index, 0), TTL: ttl, Generation: r.index,
				Services: []muster.ServiceKey{{Namespace: "default", Service: "web"}},
			}
			r.leases = append(r.leases, rec)
			c.Leases = append(c.Leases, lease.Change{Record: rec, Heard: true})
		}
		c.Index = r.index
		r.Observe(c)
		ctx, cancel := context.WithCancel(t.Context())
		led, depose := context.WithCancel(ctx)
		r.depose = depose
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.Run(ctx) })
		wg.Go(func() { r.Lead(led, 1) })
		t.Cleanup(func() {
			cancel()
			wg.Wait()
		})
		fn(r)
	})
}

// change is an entry that does c.
func (r *rig) change(cs ...lease.Change) uint64 {
	r.apply.Lock()
	defer r.apply.Unlock()
	r.index++
	r.Observe(lease.Changes{Index: r.index, Leases: cs})
	return r.index
}

// remove applies a decision as the state would.
func (r *rig) remove(d lease.Decision) (uint64, error) {
	var cs []lease.Change
	for _, ref := range d.Leases {
		cs = append(cs, lease.Change{Record: lease.Record{ID: ref.ID}, Gone: true})
	}
	return r.change(cs...), nil
}

// mark sets or clears the suspect marks as a decision says.
func (r *rig) mark(d lease.Decision) (uint64, error) {
	var cs []lease.Change
	for _, ref := range d.Leases {
		for _, l := range r.leases {
			if l.ID == ref.ID {
				l.Suspect = d.Kind == lease.Suspect
				cs = append(cs, lease.Change{Record: l})
			}
		}
	}
	return r.change(cs...), nil
}

func (r *rig) skip(lease.Decision) (uint64, error) {
	l := r.leases[0]
	l.Generation = r.index + 1
	return r.change(lease.Change{Record: l, Heard: true}), nil
}

func refuse(lease.Decision) (uint64, error) {
	return 0, muster.Errorf(muster.CodeOverloaded, "queue full")
}

func unknown(lease.Decision) (uint64, error) {
	return 0, muster.Errorf(muster.CodeOutcomeUnknown, "leadership lost")
}

// beat beats for the first lease.
func (r *rig) beat() (lease.Standing, error) {
	a, err := r.Beat(r.t.Context(), []lease.Name{{Lease: r.leases[0].ID}})
	if err != nil {
		return 0, err
	}
	return a.Results[0].State, nil
}
