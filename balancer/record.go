package balancer

import (
	"sync"
	"sync/atomic"

	"github.com/muster-registry/muster"
)

// record is what is learnt of one instance, over all the views that show it.
type record struct {
	svc  *service
	id   string
	slot uint32
	word *word // in the slot

	// permits is how many more picks may try the instance while it is half-open,
	// renewAt when there are new ones.
	permits atomic.Int64
	renewAt atomic.Int64

	mu      sync.Mutex
	breaker breaker // guarded by mu
	life    life    // guarded by mu
	view    uint64  // guarded by mu: the newest view that shows the instance
	total   tally   // guarded by mu: all outcomes
	unsent  tally   // guarded by mu: what this node heard since the last Export
	tell    int     // guarded by mu: in how many Exports to tell the breaker's state
	queued  bool    // guarded by mu: waits for the next Export
	touched moment  // guarded by mu: when it was made, or last told anything
}

// life tells an instance from a later one of the same id.
type life struct {
	created, incarnation uint64
	address              string
	port                 int
}

// meet takes note of the instance as a view of that index shows it. What was learnt
// of another one with that id is not held against it; false says that this
// happened.
func (r *record) meet(i *muster.Instance, index uint64) bool {
	now := life{i.CreateIndex, i.Incarnation, i.Address, i.Port}
	r.mu.Lock()
	defer r.mu.Unlock()
	if index < r.view {
		return true // somebody still holds an older view
	}
	r.view = index
	known := r.life == now || r.life == life{}
	r.life = now
	if !known {
		r.breaker = breaker{state: Closed}
		r.unsent, r.tell = tally{}, 0
		r.word.forget()
	}
	return known
}

// begin counts a request in flight, end counts it out.
func (r *record) begin() {
	r.word.begin()
	r.svc.inflight.Add(1)
}

func (r *record) end() {
	r.word.end()
	r.svc.inflight.Add(-1)
}

// admit reports whether a pick may try the half-open instance now.
func (r *record) admit(at moment) bool {
	renew := r.renewAt.Load()
	if int64(at) >= renew && r.renewAt.CompareAndSwap(renew, int64(at.add(trialWait))) {
		r.permits.Store(trials)
	}
	return r.permits.Load() > 0 && r.permits.Add(-1) >= 0
}
