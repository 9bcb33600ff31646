package fsm

import (
	"github.com/muster-registry/muster"
)

func (o *SetOverride) apply(s *state, at step) result {
	if err := s.busy(); err != nil {
		return reject(at, err)
	}
	svc, old := s.instance(o.Key)
	if old == nil {
		return reject(at, unknownInstance(o.Key))
	}
	over := o.Override
	over.Actor = o.Caller.Actor
	if h := old.Override; h != nil && h.Status == over.Status && h.Reason == over.Reason && h.Until.Equal(over.Until) {
		return result{index: at.index, instance: old}
	}
	next := *old
	next.Override = &over
	s.put(svc, old, &next, svc.baseOf(old), at)
	s.emit(muster.EventStatus, over.Cause(), o.Caller, old, &next, at)
	return result{index: at.index, changed: true, instance: &next}
}

func (o *ClearOverride) apply(s *state, at step) result {
	cause := muster.CauseOverrideRemoved
	if o.Term != 0 {
		cause = muster.CauseOverrideEnded
		if o.Term != at.term {
			return dropped(at)
		}
	} else if err := s.busy(); err != nil {
		return reject(at, err)
	}
	svc, old := s.instance(o.Key)
	switch {
	case old == nil:
		return reject(at, unknownInstance(o.Key))
	case old.Override == nil:
		return result{index: at.index, instance: old}
	case o.Term != 0 && !old.Override.Until.Equal(o.Until):
		return dropped(at)
	}
	b := svc.baseOf(old)
	if b.since = at.now; b.status == muster.StatusUp {
		b.cause = cause
	}
	next := *old
	next.Override = nil
	s.put(svc, old, &next, b, at)
	s.emit(muster.EventStatus, cause, o.Caller, old, &next, at)
	return result{index: at.index, changed: true, instance: &next}
}

func (o *GrantLease) apply(s *state, at step) result {
	if err := s.busy(); err != nil {
		return reject(at, err)
	}
	if s.leases.shared >= maxSharedLeases {
		return reject(at, muster.Errorf(muster.CodeQuotaExceeded, "there are %d shared leases, the most there may be", s.leases.shared))
	}
	l := lease{id: muster.MakeLeaseID(at.index, at.place), gen: at.index, ttl: int64(o.TTL), shared: newSharedLease(o.Name)}
	s.leases.add(l)
	s.out.lease(l.id, true)
	return result{index: at.index, created: true, changed: true, lease: l.public(nil)}
}

func (o *RevokeLease) apply(s *state, at step) result {
	if err := s.busy(); err != nil {
		return reject(at, err)
	}
	found := s.leases.find(o.ID)
	if found == nil {
		return reject(at, unknownLease(o.ID))
	}
	l := *found
	hangs := l.hangs()
	s.leases.remove(l.id)
	s.out.lease(l.id, false)
	for _, h := range hangs {
		s.remove(h.svc, h.svc.find(h.inst), removal{
			event: muster.EventDeregistered, cause: muster.CauseLeaseRevoked, deliberate: true, who: o.Caller, leaseEnds: true,
		}, at)
	}
	return result{index: at.index, changed: true, lease: l.public(hangs)}
}
