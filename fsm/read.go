package fsm

import (
	"iter"

	"github.com/muster-registry/muster"
)

// View returns the latest view of a service. It is nil where nothing is known of
// the service; a view without instances says that there were some, and why there
// are none.
func (f *FSM) View(k muster.ServiceKey) *muster.View {
	if s := f.dir.Load().lookup(k); s != nil {
		return s.pub.Load().view
	}
	return nil
}

// Watch returns the latest view of a service, as View does, and a channel that
// is closed when there may be another: the view was replaced, or the service
// appeared. Whoever waits for an unknown service is now and then woken for
// nothing, and looks again.
func (f *FSM) Watch(k muster.ServiceKey) (v *muster.View, changed <-chan struct{}) {
	s, absent := f.dir.Load().watch(k)
	if s == nil {
		return nil, absent
	}
	p := s.pub.Load()
	return p.view, p.changed
}

// Views yields the latest view of every service that is known, also of those
// that have no instance, in the order of namespaces and names.
func (f *FSM) Views() iter.Seq[*muster.View] {
	return func(yield func(*muster.View) bool) {
		for _, p := range f.dir.Load().published() {
			if !yield(p.view) {
				return
			}
		}
	}
}

// Services returns the services of a namespace ("": of all) that have instances
// and whose names start with prefix, sorted; the index of the last change of any
// service; and a channel that is closed at the next one. The slice is shared and
// must not be changed.
func (f *FSM) Services(namespace, prefix string) ([]muster.ServiceSummary, uint64, <-chan struct{}) {
	l := f.list.Load()
	return choose(l.summaries(), namespace, prefix), max(l.index, 1), l.changed
}

// Floor is the index of a service of which nothing is known: no lower than that
// of any service that was known and is forgotten, and never 0.
func (f *FSM) Floor() uint64 { return max(f.floor.Load(), 1) }

// Lease returns a lease and what hangs on it.
func (f *FSM) Lease(id muster.LeaseID) (*muster.Lease, bool) {
	f.mu.RLock()
	found := f.st.leases.find(id)
	if found == nil {
		f.mu.RUnlock()
		return nil, false
	}
	l, holds := *found, found.holds()
	f.mu.RUnlock()
	return l.public(sorted(holds)), true
}

// LeaseOf returns the lease that an instance hangs on: its own, or the shared
// one that it named. False where there is no such instance, or it has no lease,
// or it is down because its lease ran out.
func (f *FSM) LeaseOf(k muster.InstanceKey) (muster.LeaseID, bool) {
	v := f.View(muster.ServiceKey{Namespace: k.Namespace, Service: k.Service})
	if v == nil {
		return 0, false
	}
	i := v.Find(k.ID)
	if i == nil || i.LeaseID == 0 {
		return 0, false
	}
	return i.LeaseID, true
}

// Leases yields all leases as they are between two batches, in no order. Whoever
// also listens to Changes starts listening first: what a batch changed may be in
// both, and is never in neither.
func (f *FSM) Leases(yield func(LeaseRecord) bool) {
	f.mu.RLock()
	records := make([]LeaseRecord, 0, f.st.leases.len())
	for id := range f.st.leases.slots {
		records = append(records, f.st.leases.find(id).record())
	}
	f.mu.RUnlock()
	for _, r := range records {
		if !yield(r) {
			return
		}
	}
}
