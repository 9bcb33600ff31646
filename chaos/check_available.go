package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// grace is how long after a fault began, and after its healing began, no write may
// succeed: a new leader is there within three seconds.
const grace = 3 * time.Second

// fewBad are so few seconds that they say nothing of a share: one stumble of a busy
// machine.
const fewBad = 2

// Availability is the seconds of a run in which something could be written.
type Availability struct {
	// Seconds are all with an attempt, Writable those in which one succeeded; Counted
	// and CountedWritable are the same without those in which nothing could be promised:
	// no majority was able to work, a restore was under way, or a fault had just begun.
	Seconds, Writable, Counted, CountedWritable int
	// Gap is the longest time without an acknowledged write while a majority was able
	// to work and no restore was under way.
	Gap time.Duration
	// Timeline has a character for each second: '#' writable, '.' not, 'x' not and not
	// promised, '-' not tried.
	Timeline string
}

// Share is the share of the seconds that count.
func (a *Availability) Share() float64 {
	if a.Counted == 0 {
		return 0
	}
	return float64(a.CountedWritable) / float64(a.Counted)
}

func (a *Availability) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d seconds; %d of the %d that count, %.2f %%; the longest gap %v", a.Writable, a.Seconds, a.CountedWritable, a.Counted, 100*a.Share(), a.Gap.Round(time.Millisecond))
	for n := 0; n < len(a.Timeline); n += 60 {
		fmt.Fprintf(&b, "\n  %3d:%02d %s", n/60, n%60, a.Timeline[n:min(n+60, len(a.Timeline))])
	}
	return b.String()
}

// checkAvailable counts the seconds.
func (c *checks) checkAvailable() {
	seconds := int(time.Duration(c.last)/time.Second) + 1
	tried, done, out := make([]bool, seconds), make([]bool, seconds), make([]bool, seconds)
	at := func(ns int64) int { return min(max(int(ns/1e9), 0), seconds-1) }
	for _, r := range c.writes {
		for s := at(r.Call); s <= at(r.Return); s++ {
			tried[s] = true
		}
		if r.Outcome == OK || r.Code == "precondition_failed" || r.Code == "unknown_instance" {
			done[at(r.Return)] = true
		}
	}
	for i := range c.faults {
		f := &c.faults[i]
		excuse := func(from, to time.Time) {
			for s := at(c.h.Since(from)); s <= at(c.h.Since(to)); s++ {
				out[s] = true
			}
		}
		if f.Stall || f.Restore != nil {
			excuse(f.Start, f.End(c.h.start.Add(time.Duration(c.last))))
		} else if !f.Heal.IsZero() {
			excuse(f.Heal, f.Heal.Add(grace))
		}
		for _, shock := range append([]time.Time{f.Start}, f.Shocks...) {
			excuse(shock, shock.Add(grace))
		}
	}
	a := &c.Availability
	var line strings.Builder
	for s := range seconds {
		mark := byte('-')
		if tried[s] {
			a.Seconds++
			switch {
			case done[s]:
				a.Writable++
				mark = '#'
			case out[s]:
				mark = 'x'
			default:
				mark = '.'
			}
			// A second in trouble that was writable all the same counts for nobody.
			if !out[s] && s < seconds-1 {
				a.Counted++
				if done[s] {
					a.CountedWritable++
				}
			}
		}
		line.WriteByte(mark)
	}
	a.Timeline, a.Gap = line.String(), c.longestGap()
	if c.bounds.Short {
		return
	}
	if a.Counted == 0 {
		c.Invalid = append(c.Invalid, "no second counts for the availability")
	} else if bad := a.Counted - a.CountedWritable; bad > fewBad && a.Share() < c.bounds.MinShare {
		c.violate("available", nil, "writable in %.2f %% of the seconds that count, less than %.0f %%", 100*a.Share(), 100*c.bounds.MinShare)
	}
}

// longestGap is the longest time between two acknowledged writes, faults that take the
// majority away and restores aside.
func (c *checks) longestGap() (longest time.Duration) {
	var acks []int64
	for _, r := range c.writes {
		if r.Outcome == OK {
			acks = append(acks, r.Return)
		}
	}
	slices.Sort(acks)
	for n := 1; n < len(acks); n++ {
		from, to := acks[n-1], acks[n]
		if !slices.ContainsFunc(c.faults, func(f FaultSpan) bool {
			end := f.End(c.h.start.Add(time.Duration(c.last))).Add(grace)
			return (f.Stall || f.Restore != nil) && c.h.Since(f.Start) <= to && c.h.Since(end) >= from
		}) {
			longest = max(longest, time.Duration(to-from))
		}
	}
	return longest
}
