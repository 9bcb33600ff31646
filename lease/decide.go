package lease

import (
	"errors"
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// retryAfter is the pause after a decision that was refused, and before one
	// whose outcome is unknown is proposed again.
	retryAfter = 200 * time.Millisecond
	// timerRetry is the pause after a timer's decision that changed nothing.
	timerRetry = time.Second
)

// flight is a decision on its way. Renewals of leases it may remove wait for it.
type flight struct {
	Decision
	recs      []*record
	deadlines []time.Duration // of recs, where they ran out
	timers    []*timer
	retryAt   time.Duration
	open      bool          // it was proposed before, and that may be applied yet
	done      chan struct{} // closed once its outcome is known
	finished  bool
}

func newFlight(k Kind) *flight {
	return &flight{Decision: Decision{Kind: k}, done: make(chan struct{})}
}

func (f *flight) finish() {
	if !f.finished {
		f.finished = true
		close(f.done)
	}
}

// ended is how late each lease ended that the flight was to remove and that is
// gone now.
func (f *flight) ended(now time.Duration) (late []time.Duration) {
	for i, rec := range f.recs {
		if f.Kind.removes() && rec.gone {
			late = append(late, now-f.deadlines[i])
		}
	}
	return late
}

func (f *flight) take(rec *record) {
	f.recs = append(f.recs, rec)
	f.Leases = append(f.Leases, Ref{rec.id, rec.generation})
}

func (f *flight) full() bool { return len(f.recs) == MaxDecision }

// next takes the next decision there is to propose, nil if there is none.
func (l *ledger) next(now time.Duration, wall time.Time) *flight {
	if !l.armed || now < l.notBefore {
		return nil
	}
	if len(l.unsettled) > 0 {
		if f := l.unsettled[0]; now >= f.retryAt {
			l.unsettled = l.unsettled[1:]
			return f
		}
	}
	for _, take := range []func(time.Duration) *flight{l.takeReturned, l.takeDue, l.takeConfirmed, l.takeRipe} {
		if f := take(now); f != nil {
			return f
		}
	}
	kind, ts := l.timers.due(now, wall)
	if len(ts) == 0 {
		return nil
	}
	f := newFlight(kind)
	f.timers = ts
	for _, t := range ts {
		f.Timers = append(f.Timers, t.Timer)
	}
	return f
}

func (l *ledger) takeReturned(time.Duration) *flight {
	f := newFlight(Renewed)
	for len(l.returned) > 0 && !f.full() {
		rec := l.returned[0]
		if l.returned = l.returned[1:]; rec.returning {
			f.take(rec)
		}
	}
	return f.orNil()
}

func (f *flight) orNil() *flight {
	if len(f.recs) == 0 {
		return nil
	}
	return f
}

// takeDue judges all leases that are due and takes those to be removed, or where
// there are none, those to be held for one and the same reason. The others are
// judged again next time, with those taken now counted as lost.
func (l *ledger) takeDue(now time.Duration) *flight {
	l.due = slices.DeleteFunc(l.due, func(rec *record) bool {
		if rec.due && l.deadline(rec, now) > now {
			rec.due = false
			l.arm(rec, now)
		}
		return !rec.due
	})
	if len(l.due) == 0 {
		return nil
	}
	l.judged = slices.Grow(l.judged[:0], len(l.due))
	for _, rec := range l.due {
		l.judged = append(l.judged, Due{TTL: rec.ttl, Services: rec.services, Counted: rec.counted})
	}
	verdicts := l.gov.Judge(now, l.judged)
	if len(l.due) <= MaxDecision {
		l.judged = nil // what a mass loss needed is not kept beyond it
	}
	f := newFlight(Expire)
	first := slices.IndexFunc(verdicts, func(v Verdict) bool { return !v.Hold })
	if first < 0 {
		first = 0
		f.Kind, f.Reason = Suspect, verdicts[0].Reason
	}
	for i, rec := range l.due[first:] {
		if !rec.due || verdicts[first+i] != verdicts[first] || f.full() {
			continue
		}
		f.take(rec)
		f.deadlines = append(f.deadlines, l.deadline(rec, now))
		l.count(rec, now)
		rec.due, rec.flight = false, f
	}
	return f
}

// takeConfirmed takes held leases that an active check has confirmed dead.
func (l *ledger) takeConfirmed(now time.Duration) *flight {
	f := newFlight(LetGo)
	var later []*record
	for len(l.dead) > 0 && !f.full() {
		rec := l.dead[0]
		l.dead = l.dead[1:]
		switch {
		case !l.holds(rec) || !rec.confirmed:
		case l.deadline(rec, now) > now:
			later = append(later, rec)
		default:
			f.takeHeld(rec, l.deadline(rec, now))
		}
	}
	l.dead = append(l.dead, later...)
	return f.orNil()
}

func (f *flight) takeHeld(rec *record, deadline time.Duration) {
	f.take(rec)
	f.deadlines = append(f.deadlines, deadline)
	rec.flight = f
}

// holds reports whether the governor holds a lease and nothing is under way to
// end that.
func (l *ledger) holds(rec *record) bool {
	return rec.suspect && !rec.returning && rec.flight == nil
}

// takeRipe takes a slice of the leases that were held for long enough, or that
// are not to be held any more because the governor was turned off. One that may
// have been heard from since stays until that has run out too.
func (l *ledger) takeRipe(now time.Duration) *flight {
	hold := l.maxHold
	if s := l.gov.switches; s != nil && !s.GovernorOn() {
		hold = 0
	}
	var ripe, rest []heldRecord
	n := 0
	for ; n < len(l.held) && l.held[n].at+hold <= now; n++ {
		switch h := l.held[n]; {
		case !h.rec.suspect || h.rec.heldAt != h.at: // stale
		case h.rec.flight != nil && h.rec.flight.Kind == LetGo: // put back if it does not go
		case l.holds(h.rec) && l.deadline(h.rec, now) <= now:
			ripe = append(ripe, h)
		default:
			rest = append(rest, h)
		}
	}
	f := newFlight(LetGo)
	l.slice = min(l.slice+l.gov.Release(now, l.suspects, len(ripe)), len(ripe))
	count := min(l.slice, MaxDecision)
	l.slice -= count
	for _, h := range ripe[:count] {
		f.takeHeld(h.rec, l.deadline(h.rec, now))
	}
	if n > 0 {
		l.held = slices.Concat(ripe[count:], rest, l.held[n:])
	}
	return f.orNil()
}

// notApplied reports whether a decision surely did not and will not happen.
func notApplied(err error) bool {
	return errors.Is(err, muster.CodeNoLeader) || errors.Is(err, muster.CodeOverloaded) ||
		errors.Is(err, muster.CodeDiskFull) || errors.Is(err, muster.CodeShuttingDown)
}

// settle ends a flight. The ledger has followed the state past its entry, so
// that it shows what became of each lease: removed, or skipped because it was
// registered again. It reports whether the outcome is known; if not, the leases
// stay in flight and the decision is proposed again: entries of one leader apply
// in the order of its proposals, so once the second is applied, the first is too
// or never will be. That the second was refused says nothing of the first, which
// may lie before a disk that hangs: a lease let out of the flight then could be
// renewed, and be ended by the first all the same.
func (l *ledger) settle(f *flight, err error, now time.Duration) bool {
	switch {
	case err == nil:
	case notApplied(err):
		l.notBefore = now + retryAfter
	default:
		f.open = true
	}
	if err != nil && f.open {
		f.retryAt = now + retryAfter
		l.unsettled = append(l.unsettled, f)
		return false
	}
	var held []heldRecord
	for _, rec := range f.recs {
		if rec.flight == f {
			rec.flight = nil
		}
		switch {
		case rec.gone:
		case rec.suspect && f.Kind == Renewed:
			// Refused, or marked again since: the next renewal asks anew.
			if rec.returning = err != nil; rec.returning {
				l.returned = append(l.returned, rec)
			}
		case rec.suspect && f.Kind == LetGo:
			if held = append(held, heldRecord{rec, rec.heldAt}); rec.confirmed {
				l.dead = append(l.dead, rec)
			}
		case rec.suspect: // by this Suspect
			if l.deadline(rec, now) > now {
				l.renew(rec, now)
			}
		case err != nil && f.Kind != Renewed && l.deadline(rec, now) <= now:
			rec.due = true
			l.due = append(l.due, rec)
		default:
			rec.counted = false
			l.arm(rec, now)
		}
	}
	l.held = slices.Concat(held, l.held)
	pause := timerRetry
	if err != nil {
		pause = retryAfter
	}
	l.timers.retry(f.Kind, f.timers, now+pause)
	f.finish()
	return true
}
