package fsm

import (
	"github.com/muster-registry/muster"
)

func (o *Register) apply(s *state, at step) result {
	if err := s.busy(); err != nil {
		return reject(at, err)
	}
	key := keyOf(o.Instance)
	svc, old := s.instance(key)
	var stone *tombstone
	if old == nil {
		stone = s.tombs.find(key)
	}
	if err := o.admit(s, svc, old, stone); err != nil {
		return reject(at, err)
	}
	if old != nil && o.same(old) {
		return s.refresh(svc, old, o.Caller, at)
	}
	return o.replace(s, old, stone, at)
}

// admit says why the registration is not taken; nil where it is.
func (o *Register) admit(s *state, svc *service, old *muster.Instance, stone *tombstone) *muster.Error {
	i, key := o.Instance, keyOf(o.Instance)
	switch {
	case old != nil && i.Incarnation != 0 && i.Incarnation < old.Incarnation:
		return fenced(key, i.Incarnation, old.Incarnation)
	case stone.fences(i.Incarnation):
		e := fenced(key, i.Incarnation, stone.incarnation)
		if stone.incarnation == i.Incarnation {
			e.Detail = muster.Errorf(muster.CodeFenced, "incarnation %d of %s was deregistered", i.Incarnation, key).Detail
		}
		return e
	}
	if err := holds(o.Cond, key, old); err != nil {
		return err
	}
	if i.LeaseID != 0 {
		l := s.leases.find(i.LeaseID)
		shared := l != nil && l.shared != nil
		switch {
		case i.TTL == 0 && l == nil:
			return unknownLease(i.LeaseID)
		case i.TTL == 0 && !shared:
			return muster.Errorf(muster.CodeUnknownLease, "lease %s is an instance's own and cannot be shared", i.LeaseID).
				WithHint("make a lease by POST /v1/leases, or send a ttl instead of lease_id")
		case i.TTL != 0 && shared:
			return &muster.Error{
				Code: muster.CodeConflictingField, Detail: "ttl and a shared lease exclude each other",
				Hint:   "send lease_id or ttl, not both",
				Fields: []muster.FieldError{{Pointer: "/ttl", Detail: "goes not with lease_id " + i.LeaseID.String() + ", which has its own"}},
			}
		}
	}
	switch {
	case old != nil:
	case svc != nil && svc.n >= muster.MaxInstances:
		return muster.Errorf(muster.CodeQuotaExceeded, "service %s has %d instances, the most there may be", svc.key, svc.n)
	case (svc == nil || svc.n == 0) && s.live >= muster.MaxServices:
		return muster.Errorf(muster.CodeQuotaExceeded, "there are %d services, the most there may be", s.live)
	}
	return nil
}

// same reports whether the registration only repeats what is stored.
func (o *Register) same(old *muster.Instance) bool {
	i := o.Instance
	return !Expired(old) && (i.Incarnation == 0 || i.Incarnation == old.Incarnation) &&
		(i.TTL != 0 || i.LeaseID == old.LeaseID) && i.SameSpec(old)
}

// refresh takes an identical registration: the lease was heard from, and nothing
// visible changes unless the expiry governor held it.
func (s *state) refresh(svc *service, old *muster.Instance, who muster.Caller, at step) result {
	lifted := s.hear(old.LeaseID, hanging{}, who, at)
	return result{index: at.index, changed: lifted, instance: svc.find(old.ID)}
}

// hear notes that a registration touched a lease: it takes a new generation, so
// that an expiry decided before does not hold, and is held no longer. It reports
// whether that changed an instance other than the one its caller is writing.
func (s *state) hear(id muster.LeaseID, but hanging, who muster.Caller, at step) bool {
	if id == 0 {
		return false
	}
	l := s.leases.edit(id)
	l.gen = at.index
	s.out.lease(id, true)
	return s.lift(l, but, who, at)
}

// replace stores a registration that is new or differs from what is stored. The
// operation's own instance becomes the stored one.
func (o *Register) replace(s *state, old *muster.Instance, stone *tombstone, at step) result {
	next := o.Instance
	svc := s.service(muster.ServiceKey{Namespace: next.Namespace, Service: next.Service})
	next.Namespace, next.Service = svc.key.Namespace, svc.key.Service
	b := base{initial(next), muster.CauseRegistered, at.now}
	event, cause := muster.EventRegistered, muster.CauseRegistered
	if old == nil {
		share(next, svc.like)
		next.RegisteredAt, next.CreateIndex = at.now, at.index
		startChecks(next, at)
		if stone != nil {
			next.Incarnation = atLeast(next.Incarnation, stone.incarnation)
			s.tombs.forget(stone.key)
		}
	} else {
		b, event, cause = o.succeed(svc, old, at)
	}
	next.Incarnation = max(next.Incarnation, 1)
	s.settleLease(svc, old, next, o.Caller, at)
	s.put(svc, old, next, b, at)
	s.emit(event, cause, o.Caller, old, next, at)
	return result{index: at.index, created: old == nil, changed: true, instance: next}
}

// succeed carries over what the registration keeps of the instance it replaces.
// It returns the status below an override and what to tell of the change.
func (o *Register) succeed(svc *service, old *muster.Instance, at step) (base, muster.EventType, muster.Cause) {
	next := o.Instance
	share(next, old)
	next.ID, next.Override = old.ID, old.Override
	next.RegisteredAt, next.CreateIndex = old.RegisteredAt, old.CreateIndex
	alike := next.SameSpec(old)
	given := next.Incarnation
	next.Incarnation = atLeast(given, old.Incarnation)
	fresh := initial(next)
	moved := retargeted(old, next)
	if moved || Expired(old) {
		startChecks(next, at)
	} else {
		keepChecks(old, next)
	}
	switch b := svc.baseOf(old); {
	case Expired(old) && alike:
		if given == 0 {
			next.Incarnation = old.Incarnation
		}
		return base{fresh, muster.CauseRegistered, at.now}, muster.EventStatus, muster.CauseRegistered
	case Expired(old):
		return base{fresh, muster.CauseRegistered, at.now}, muster.EventUpdated, muster.CauseRegistered
	case moved && b.status != fresh:
		return base{fresh, muster.CauseUpdated, at.now}, muster.EventUpdated, muster.CauseUpdated
	default:
		return b, muster.EventUpdated, muster.CauseUpdated
	}
}

// settleLease has next hang on the shared lease it names, on its own, or on
// none. An own one is kept over changes; its TTL may change.
func (s *state) settleLease(svc *service, old, next *muster.Instance, who muster.Caller, at step) {
	var before lease
	if old != nil && old.LeaseID != 0 {
		before = *s.leases.find(old.LeaseID)
	}
	own := before.id != 0 && before.shared == nil
	switch {
	case next.TTL == 0 && before.id == next.LeaseID: // the same shared one
	case next.TTL > 0 && own:
		next.LeaseID = before.id
		l := s.leases.edit(before.id)
		l.ttl, l.down = int64(next.TTL), next.OnExpiry == muster.ExpiryDown
	default:
		if before.id != 0 {
			s.unhang(before, svc, next.ID)
		}
		switch {
		case next.TTL == 0:
			s.leases.find(next.LeaseID).shared.hang(svc, next.ID)
		case next.TTL == muster.NoTTL:
			next.LeaseID = 0
		default:
			next.LeaseID = muster.MakeLeaseID(at.index, at.place)
			s.leases.add(lease{id: next.LeaseID, ttl: int64(next.TTL), svc: svc, inst: next.ID, down: next.OnExpiry == muster.ExpiryDown})
		}
	}
	s.hear(next.LeaseID, hanging{svc, next.ID}, who, at)
}

// unhang takes an instance off a lease; its own ends with that.
func (s *state) unhang(l lease, svc *service, id string) {
	if l.shared != nil {
		l.shared.unhang(svc, id)
	} else {
		s.leases.remove(l.id)
	}
	s.out.lease(l.id, false)
}

// initial is the status of an instance of which nothing is known yet.
func initial(i *muster.Instance) muster.Status {
	if len(i.Checks) > 0 {
		return muster.StatusUnknown
	}
	return muster.StatusUp
}

// retargeted reports whether what checks found out about old says nothing of next.
func retargeted(old, next *muster.Instance) bool {
	return old.Address != next.Address || old.Port != next.Port || !muster.SameChecks(old.Checks, next.Checks)
}

// atLeast is the incarnation of a registration that differs from the last one
// known: the one it gives, or the next.
func atLeast(given, last uint64) uint64 {
	if given != 0 {
		return given
	}
	return min(last+1, muster.MaxIncarnation)
}
