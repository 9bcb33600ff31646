package health

import (
	"math"
	"time"
)

// The rule of flap damping, after RFC 2439: every change adds one to a penalty
// that halves every dampHalfLife. An instance that changed more than flapChanges
// times within flapWindow is held out until the penalty has decayed to dampReuse.
// Further changes while it is held add to the penalty, up to dampMost, and so put
// the release off: a hold lasts about 2 to 10 minutes from the last change.
const (
	flapChanges  = 6
	flapWindow   = 10 * time.Minute
	dampHalfLife = 5 * time.Minute
	dampReuse    = 3.0
	dampMost     = 12.0
)

// Damper counts the changes of one instance between up and down. The zero value
// has seen none. It is a plain value.
type Damper struct {
	changes [flapChanges + 1]time.Time // the latest, in a ring
	next    int
	penalty float64 // as of at
	at      time.Time
	until   time.Time // zero: not held
}

// HeldDamper is the damper of an instance of which only the release time is
// known, as a new leader finds it.
func HeldDamper(until, now time.Time) Damper {
	left := max(until.Sub(now), 0)
	penalty := min(dampReuse*math.Exp2(float64(left)/float64(dampHalfLife)), dampMost)
	return Damper{penalty: penalty, at: now, until: until}
}

// Change notes a change. Times must not go backwards.
func (d *Damper) Change(now time.Time) {
	if !d.at.IsZero() {
		d.penalty *= math.Exp2(-float64(now.Sub(d.at)) / float64(dampHalfLife))
	}
	d.penalty, d.at = min(d.penalty+1, dampMost), now
	d.changes[d.next] = now
	d.next = (d.next + 1) % len(d.changes)
	oldest := d.changes[d.next]
	often := !oldest.IsZero() && now.Sub(oldest) <= flapWindow
	if (often || now.Before(d.until)) && d.penalty > dampReuse {
		hold := time.Duration(math.Log2(d.penalty/dampReuse) * float64(dampHalfLife))
		d.until = now.Add(hold).Truncate(time.Millisecond)
	}
}

// Held is the time of the release of an instance that is held out; zero where it
// is not.
func (d *Damper) Held(now time.Time) time.Time {
	if now.Before(d.until) {
		return d.until
	}
	return time.Time{}
}
