package fsm

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
)

// state is what the log says. It belongs to raft's goroutine, which writes it
// under FSM.mu; what readers see of services goes through dir.
type state struct {
	clusterID string
	level     uint64 // the cluster's feature level
	epoch     uint64
	applied   uint64 // raft index of the last entry
	stamp     int64  // time of the last entry in unix milliseconds
	floor     uint64 // index of the newest service tombstone that was dropped
	listIndex uint64 // index of the last change that any service shows

	dir     *directory
	live    int             // services with instances
	gone    queue[*service] // services without, the oldest first
	tombs   tombstones      // instances that are gone
	leases  leaseTable      //
	journal journal         //
	members members         //
	staging *staging        // an unfinished restore
	// settings are those of the services that have their own, also where there is
	// no such service (yet). The map is copied before it is written.
	settings map[muster.ServiceKey]*muster.Settings
	governor governor
	counts   [numStatuses]int // instances by status

	out gathered
}

// step is the moment at which an operation is applied.
type step struct {
	index uint64 // of the entry
	raft  uint64 // the same without the epoch
	place int    // of the operation within it
	term  uint64 // of the entry
	now   time.Time
}

func newState() *state {
	return &state{
		level:  baseLevel,
		dir:    newDirectory(),
		tombs:  tombstones{byKey: make(map[muster.InstanceKey]*tombstone)},
		leases: newLeaseTable(), settings: make(map[muster.ServiceKey]*muster.Settings),
		out: gathered{heard: make(map[muster.LeaseID]bool), tally: &tally{}},
	}
}

func (s *state) index() uint64 { return muster.MakeIndex(s.epoch, s.applied) }

// applyEntry applies one entry, as a whole, and returns a result an operation.
func (s *state) applyEntry(l *raft.Log, stamp int64, ops []parsed) []result {
	s.stamp = max(s.stamp, stamp)
	at := step{raft: l.Index, term: l.Term, now: fromMillis(s.stamp)}
	results := make([]result, len(ops))
	for n, o := range ops {
		// A restore raises the epoch, and with it the index, in mid-entry.
		at.index, at.place = muster.MakeIndex(s.epoch, l.Index), n
		results[n] = o.op.apply(s, at)
		s.out.tally.operation(o.kind, &results[n])
	}
	s.out.sealEntry(muster.MakeIndex(s.epoch, l.Index))
	s.applied = l.Index
	return results
}

// service returns the service of that name, made if need be.
func (s *state) service(k muster.ServiceKey) *service {
	svc := s.dir.find(k)
	if svc == nil {
		svc = newService(muster.ServiceKey{Namespace: k.Namespace, Service: k.Service})
		svc.settings = s.settings[svc.key]
		s.dir.add(svc)
		s.touch(svc)
	}
	return svc
}

// touch has the service published at the end of the batch.
func (s *state) touch(svc *service) {
	if !svc.dirty {
		svc.dirty = true
		s.out.dirty = append(s.out.dirty, svc)
	}
}

// instance finds an instance; both are nil where the service is not known.
func (s *state) instance(k muster.InstanceKey) (*service, *muster.Instance) {
	svc := s.dir.find(muster.ServiceKey{Namespace: k.Namespace, Service: k.Service})
	if svc == nil {
		return nil, nil
	}
	return svc, svc.find(k.ID)
}

// put replaces old (nil: none) by next, whose status below its override is b.
// It settles what next shows.
func (s *state) put(svc *service, old, next *muster.Instance, b base, at step) {
	settle(old, next, b, at.now)
	next.ModifyIndex, next.Place = at.index, at.place
	if next.Override != nil {
		svc.setBelow(next.ID, &b)
	} else {
		svc.setBelow(next.ID, nil)
	}
	if svc.n == 0 && old == nil {
		switch {
		case svc.known:
			s.gone.remove(svc.place)
		case svc.settings != nil:
			s.unveil(svc, at)
		}
		svc.known = true
		s.live++
	}
	s.change(svc, next.ID, old, next, at)
	svc.like = next
}

// drop removes an instance from its service. It does not touch its lease.
func (s *state) drop(svc *service, old *muster.Instance, why muster.EmptyReason, at step) {
	svc.setBelow(old.ID, nil)
	s.change(svc, old.ID, old, nil, at)
	if svc.n > 0 {
		return
	}
	svc.reason = why
	s.live--
	if s.gone.n == maxServiceTombstones {
		s.dropService(s.gone.pop())
	}
	s.gone.push(svc)
}

// dropService forgets a service that has no instance. Whoever waits for it goes
// on from the floor.
func (s *state) dropService(svc *service) {
	svc.known = false
	s.floor = max(s.floor, svc.index)
	s.touch(svc)
}

// show has the service seen anew, and the list of services with it, as of this entry.
func (s *state) show(svc *service, at step) {
	svc.shown, svc.index = true, at.index
	s.listIndex, s.out.listed = at.index, true
	s.touch(svc)
}

func (s *state) change(svc *service, id string, old, next *muster.Instance, at step) {
	svc.set(id, old, next)
	s.show(svc, at)
	if old != nil {
		s.counts[statusNumber(old.Status)]--
	}
	if next != nil {
		s.counts[statusNumber(next.Status)]++
	}
}

// settle sets what next shows from its status below the override and the
// override itself.
func settle(old, next *muster.Instance, b base, now time.Time) {
	next.Status, next.StatusCause, next.StatusSince = b.status, b.cause, b.since
	if o := next.Override; o != nil {
		next.Status, next.StatusCause, next.StatusSince = o.Status, o.Cause(), now
		if old != nil && old.Status == o.Status && old.Override != nil {
			next.StatusSince = old.StatusSince
		}
	}
	next.Routable = routable(next)
}

// emit tells of a transition of an instance: old (nil: it was not there) became
// next (nil: it is gone).
func (s *state) emit(t muster.EventType, cause muster.Cause, who muster.Caller, old, next *muster.Instance, at step) {
	e := &muster.Event{Index: at.index, Time: at.now, Type: t, Cause: cause, Actor: who.Actor, Reason: who.Reason}
	of := next
	if next != nil {
		e.Status = next.Status
	} else {
		of = old
	}
	if old != nil {
		e.PrevStatus = old.Status
	}
	e.Namespace, e.Service, e.ID = of.Namespace, of.Service, of.ID
	s.tell(e, func(told *muster.Event) { told.Instance = next })
}

// tell notes e in the journal, and tells the listeners of it with the body that
// the journal does not keep.
func (s *state) tell(e *muster.Event, body func(*muster.Event)) {
	s.journal.add(e)
	s.out.tally.transition(e.Cause)
	if s.out.listen && !s.out.reset {
		told := *e
		body(&told)
		s.out.events = append(s.out.events, &told)
	}
}

// The numbers of the statuses, for counting.
const numStatuses = 6

var statusNames = [numStatuses]muster.Status{
	muster.StatusUp, muster.StatusUnknown, muster.StatusDown, muster.StatusDraining, muster.StatusMaintenance, "other",
}

func statusNumber(st muster.Status) int {
	for n, name := range statusNames {
		if st == name {
			return n
		}
	}
	return numStatuses - 1
}

// Rejections that several operations share.

func unknownInstance(k muster.InstanceKey) *muster.Error {
	return muster.Errorf(muster.CodeUnknownInstance, "nothing is known of instance %s", k)
}

func unknownLease(id muster.LeaseID) *muster.Error {
	return muster.Errorf(muster.CodeUnknownLease, "there is no lease %s", id)
}

func fenced(k muster.InstanceKey, given, known uint64) *muster.Error {
	return muster.Errorf(muster.CodeFenced, "incarnation %d of %s is older than incarnation %d", given, k, known).
		WithHint("a newer process speaks for this instance; start with a higher incarnation to take it over")
}

// holds checks a condition against what is stored; nil where it holds.
func holds(c muster.Condition, k muster.InstanceKey, stored *muster.Instance) *muster.Error {
	switch {
	case c.IsZero():
		return nil
	case c.Absent && stored != nil:
		return muster.Errorf(muster.CodePreconditionFailed, "instance %s is there, as of index %s", k, stored.ETag())
	case c.ModifyIndex == 0:
		return nil
	case stored == nil:
		return muster.Errorf(muster.CodePreconditionFailed, "instance %s is not there", k)
	case stored.ModifyIndex != c.ModifyIndex || c.Place >= 0 && stored.Place != c.Place:
		return muster.Errorf(muster.CodePreconditionFailed, "instance %s was last changed at %s", k, stored.ETag())
	}
	return nil
}
