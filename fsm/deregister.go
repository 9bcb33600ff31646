package fsm

import (
	"github.com/muster-registry/muster"
)

func (o *Deregister) apply(s *state, at step) result {
	if err := s.busy(); err != nil {
		return reject(at, err)
	}
	svc, old := s.instance(o.Key)
	if old == nil {
		return o.again(s, at)
	}
	if o.Incarnation != 0 && o.Incarnation < old.Incarnation {
		return reject(at, fenced(o.Key, o.Incarnation, old.Incarnation))
	}
	if err := holds(o.Cond, o.Key, old); err != nil {
		return reject(at, err)
	}
	s.remove(svc, old, removal{
		event: muster.EventDeregistered, cause: muster.CauseDeregistered, deliberate: true,
		incarnation: max(o.Incarnation, old.Incarnation), who: o.Caller,
	}, at)
	return result{index: at.index, changed: true}
}

// again takes the deregistration of what is not there: fine where it is
// remembered. The removal counts as deliberate from now on, so that a late retry
// of the registration before it does not bring the instance back.
func (o *Deregister) again(s *state, at step) result {
	if err := holds(o.Cond, o.Key, nil); err != nil {
		return reject(at, err)
	}
	stone := s.tombs.find(o.Key)
	if stone == nil {
		return reject(at, unknownInstance(o.Key))
	}
	if o.Incarnation == 0 || o.Incarnation >= stone.incarnation {
		s.tombs.confirm(stone, o.Incarnation)
	}
	return result{index: at.index}
}

// removal is how an instance goes.
type removal struct {
	event       muster.EventType
	cause       muster.Cause
	deliberate  bool
	incarnation uint64
	who         muster.Caller
	leaseEnds   bool // the whole lease ends, and whoever ends it sees to it
}

// remove takes an instance away and remembers it.
func (s *state) remove(svc *service, old *muster.Instance, how removal, at step) {
	if old.LeaseID != 0 && !how.leaseEnds {
		s.unhang(*s.leases.find(old.LeaseID), svc, old.ID)
	}
	s.tombs.bury(keyOf(old), max(how.incarnation, old.Incarnation), how.deliberate)
	why := muster.EmptyExpired
	if how.deliberate {
		why = muster.EmptyDeregistered
	}
	s.drop(svc, old, why, at)
	s.emit(how.event, how.cause, how.who, old, nil, at)
}
