package fsm

import (
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fault"
)

// dropped is the result of a decision that was made in another term.
func dropped(at step) result { return result{index: at.index, dropped: true} }

func (o *Expire) apply(s *state, at step) result {
	if o.Term != at.term && !fault.Is(fault.NoTermCheck) {
		return dropped(at)
	}
	cause := muster.CauseLeaseExpired
	if o.Released {
		cause = muster.CauseReleased
	}
	r := result{index: at.index, outcomes: make([]Outcome, len(o.Leases))}
	for n, e := range o.Leases {
		l := s.leases.find(e.ID)
		switch {
		case l == nil:
			r.outcomes[n] = OutcomeGone
		case l.gen != e.Generation && !fault.Is(fault.NoGeneration):
			r.outcomes[n] = OutcomeSkipped
		default:
			s.expire(*l, cause, o.Caller, at)
			r.changed = true
		}
	}
	return r
}

// expire ends a lease: what hangs on it is removed, or kept as down.
func (s *state) expire(l lease, cause muster.Cause, who muster.Caller, at step) {
	s.leases.remove(l.id)
	s.out.lease(l.id, false)
	for _, h := range l.hangs() {
		old := h.svc.find(h.inst)
		if old.OnExpiry != muster.ExpiryDown {
			s.remove(h.svc, old, removal{event: muster.EventExpired, cause: cause, who: who, leaseEnds: true}, at)
			continue
		}
		next := *old
		next.LeaseID = 0
		next.HeldUntil = time.Time{}
		unsuspect(&next)
		s.put(h.svc, old, &next, base{muster.StatusDown, cause, at.now}, at)
		s.emit(muster.EventStatus, cause, who, old, &next, at)
	}
}

func (o *Suspect) apply(s *state, at step) result {
	if o.Term != at.term {
		return dropped(at)
	}
	r := result{index: at.index, outcomes: make([]Outcome, len(o.Leases))}
	for n, e := range o.Leases {
		l := s.leases.find(e.ID)
		switch {
		case l == nil:
			r.outcomes[n] = OutcomeGone
		case l.gen != e.Generation:
			r.outcomes[n] = OutcomeSkipped
		case !l.suspect:
			s.suspect(s.leases.edit(e.ID), o.Reason, o.Caller, at)
			r.changed = true
		}
	}
	return r
}

// suspect marks what hangs on a lease.
func (s *state) suspect(l *lease, reason string, who muster.Caller, at step) {
	l.suspect = true
	s.out.lease(l.id, false)
	for _, h := range l.hangs() {
		old := h.svc.find(h.inst)
		next := *old
		next.Suspect, next.SuspectSince, next.SuspectReason = true, at.now, reason
		s.put(h.svc, old, &next, h.svc.baseOf(old), at)
		s.emit(muster.EventStatus, muster.CauseSuspected, who, old, &next, at)
	}
}

func (o *Release) apply(s *state, at step) result {
	if o.Term != at.term {
		return dropped(at)
	}
	r := result{index: at.index, outcomes: make([]Outcome, len(o.Leases))}
	for n, id := range o.Leases {
		if s.leases.find(id) == nil {
			r.outcomes[n] = OutcomeGone
			continue
		}
		r.changed = s.lift(s.leases.edit(id), hanging{}, o.Caller, at) || r.changed
	}
	return r
}

// lift takes the suspect mark off what hangs on a lease, but for the instance
// that the caller is writing anyway. It reports whether anything changed.
func (s *state) lift(l *lease, but hanging, who muster.Caller, at step) bool {
	if !l.suspect {
		return false
	}
	l.suspect = false
	s.out.lease(l.id, false)
	changed := false
	for _, h := range l.hangs() {
		if h == but {
			continue
		}
		changed = true
		old := h.svc.find(h.inst)
		next := *old
		unsuspect(&next)
		s.put(h.svc, old, &next, h.svc.baseOf(old), at)
		s.emit(muster.EventStatus, muster.CauseRenewed, who, old, &next, at)
	}
	return changed
}

func unsuspect(i *muster.Instance) {
	i.Suspect, i.SuspectSince, i.SuspectReason = false, time.Time{}, ""
}

func (o *Reap) apply(s *state, at step) result {
	if o.Term != at.term {
		return dropped(at)
	}
	r := result{index: at.index, outcomes: make([]Outcome, len(o.Targets))}
	for n, t := range o.Targets {
		svc, old := s.instance(t.Key)
		switch {
		case old == nil:
			r.outcomes[n] = OutcomeGone
		case old.ModifyIndex != t.ModifyIndex || !Expired(old):
			r.outcomes[n] = OutcomeSkipped
		default:
			s.remove(svc, old, removal{event: muster.EventExpired, cause: muster.CauseRemoveAfter, who: o.Caller}, at)
			r.changed = true
		}
	}
	return r
}
