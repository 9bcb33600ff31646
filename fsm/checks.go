package fsm

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

func (o *Judge) apply(s *state, at step) result {
	if o.Term != at.term {
		return dropped(at)
	}
	r := result{index: at.index, outcomes: make([]Outcome, len(o.Verdicts))}
	for n := range o.Verdicts {
		v := &o.Verdicts[n]
		svc, old := s.instance(v.Key)
		switch {
		case old == nil:
			r.outcomes[n] = OutcomeGone
		case old.ChecksFrom != v.Life || len(v.Checks) == 0 || len(old.Checks) != len(v.Checks) || Expired(old):
			r.outcomes[n] = OutcomeSkipped
		default:
			r.changed = s.judge(svc, old, v, o.Caller, at) || r.changed
		}
	}
	return r
}

// judge gives an instance the states of its checks, and the status that follows.
// It reports whether anything changed.
func (s *state) judge(svc *service, old *muster.Instance, v *Verdict, who muster.Caller, at step) bool {
	next := *old
	next.Checks = slices.Clone(old.Checks)
	next.HeldUntil = v.HeldUntil
	var turned *muster.Check // the check to tell of: one that failed before one that passed
	changed := !next.HeldUntil.Equal(old.HeldUntil)
	for n := range next.Checks {
		c, state := &next.Checks[n], v.Checks[n]
		if state.Status == c.Status {
			changed = changed || c.Contested != state.Contested
			c.Contested = state.Contested
			continue
		}
		changed = true
		state.Since = at.now
		c.CheckState = state
		if turned == nil || state.Status == muster.StatusDown && turned.Status != muster.StatusDown {
			turned = c
		}
	}
	if !changed {
		return false
	}
	before := svc.baseOf(old)
	b := checked(&next, before, at.now)
	cause := b.cause
	switch {
	case b.status != before.status || !next.HeldUntil.IsZero() && old.HeldUntil.IsZero():
	case turned == nil:
		cause = muster.CauseCheckContested
		if !next.HeldUntil.Equal(old.HeldUntil) {
			cause = muster.CauseFlapping
		}
	case turned.Status == muster.StatusDown:
		cause = muster.CauseCheckFailed
	default:
		cause = muster.CauseCheckPassed
	}
	if turned != nil {
		who.Reason = wordsOf(turned)
	}
	s.put(svc, old, &next, b, at)
	s.emit(muster.EventStatus, cause, who, old, &next, at)
	return true
}

// checked is the status that the checks of i give it, below any override.
func checked(i *muster.Instance, before base, now time.Time) base {
	b := base{muster.WorstCheck(i.Checks), muster.CauseCheckPassed, now}
	switch {
	case !i.HeldUntil.IsZero():
		b.status, b.cause = muster.StatusDown, muster.CauseFlapping
	case b.status == muster.StatusDown:
		b.cause = muster.CauseCheckFailed
	}
	if b.status == before.status {
		if b.since = before.since; b.status != muster.StatusDown {
			b.cause = before.cause
		}
	}
	return b
}

// wordsOf says what became of a check, for people.
func wordsOf(c *muster.Check) string {
	text := c.Name
	if c.Cause != "" {
		text += ": " + string(c.Cause)
	}
	if c.Output != "" {
		text += ": " + c.Output
	}
	for len(text) > muster.MaxReasonLen {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// startChecks begins a new life of the checks of i, of which nothing is known.
func startChecks(i *muster.Instance, at step) {
	i.ChecksFrom, i.HeldUntil = 0, time.Time{}
	if len(i.Checks) == 0 {
		return
	}
	i.ChecksFrom = at.index
	i.Checks = slices.Clone(i.Checks)
	for n := range i.Checks {
		i.Checks[n].CheckState = muster.CheckState{Status: muster.StatusUnknown, Since: at.now}
	}
}

// keepChecks carries over what is known of the checks, which are the same.
func keepChecks(old, next *muster.Instance) {
	next.Checks, next.ChecksFrom, next.HeldUntil = old.Checks, old.ChecksFrom, old.HeldUntil
}

func appendCheckState(b []byte, c *muster.CheckState) []byte {
	b = wire.AppendString(b, 1, string(c.Status))
	b = wire.AppendString(b, 2, string(c.Cause))
	b = wire.AppendString(b, 3, c.Output)
	b = wire.AppendUint(b, 4, uint64(max(c.Latency, 0)))
	b = appendTime(b, 5, c.Since)
	return wire.AppendBool(b, 6, c.Contested)
}

func readCheckState(d *decoder) (c muster.CheckState) {
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 1:
			c.Status = readStatus(&in)
		case 2:
			c.Cause = muster.CheckCause(in.str())
		case 3:
			c.Output = in.str()
		case 4:
			c.Latency = muster.Duration(in.span())
		case 5:
			c.Since = in.time()
		case 6:
			c.Contested = in.bool()
		}
	}
	d.nested(&in)
	return c
}

// setCheckStates puts the states of a record beside the checks of its spec. A
// record of before there were states has none: nothing is known then.
func setCheckStates(i *muster.Instance, states []muster.CheckState) error {
	if len(states) == 0 && len(i.Checks) > 0 {
		startChecks(i, step{index: i.CreateIndex, now: i.RegisteredAt})
		return nil
	}
	if len(states) != len(i.Checks) || (i.ChecksFrom == 0) != (len(i.Checks) == 0) || i.ChecksFrom > i.ModifyIndex {
		return errInconsistent
	}
	for n := range states {
		i.Checks[n].CheckState = states[n]
	}
	return nil
}

func (o Judge) append(b []byte) []byte {
	b = wire.AppendUint(b, 1, o.Term)
	for n := range o.Verdicts {
		v := &o.Verdicts[n]
		b = appendMessage(b, 2, func(b []byte) []byte {
			b = appendTime(wire.AppendUint(appendKey(b, v.Key), 4, v.Life), 5, v.HeldUntil)
			for m := range v.Checks {
				b = appendMessage(b, 6, func(b []byte) []byte { return appendCheckState(b, &v.Checks[m]) })
			}
			return b
		})
	}
	return appendCaller(b, o.Caller)
}

func readJudge(d *decoder) *Judge {
	o := &Judge{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.Term = d.uint(1<<64 - 1)
		case 2:
			if o.Verdicts = append(o.Verdicts, readVerdict(d)); len(o.Verdicts) > MaxLeases {
				d.Fail(errTooMany)
			}
		default:
			d.caller(&o.Caller)
		}
	}
	return o
}

func readVerdict(d *decoder) (v Verdict) {
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 4:
			v.Life = in.index()
		case 5:
			v.HeldUntil = in.time()
		case 6:
			if v.Checks = append(v.Checks, readCheckState(&in)); len(v.Checks) > maxList {
				in.Fail(errTooMany)
			}
		default:
			readKey(&v.Key, &in)
		}
	}
	d.nested(&in)
	d.named(v.Key)
	return v
}
