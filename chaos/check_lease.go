package chaos

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// stampUnit is how finely entries are stamped: a stamp lies up to this before the
	// time at which it was given.
	stampUnit = 1
	// lateCalm is how long after its ttl a lease may live at most where nothing
	// happened (P4). lateFault is added for every fault that touches its last ttl, with
	// the time it lasted, and a ttl: a new leader whom no majority of tables older than
	// that can tell of it grants a full one.
	lateCalm  = 1000
	lateFault = 2000
	// lateHeld is how long the expiry governor may hold a lease: max_hold, and the
	// slices in which it lets go.
	lateHeld = 95_000
	// stallBegins is how long it may take until a fault that stops all has stopped them.
	// stallSlack is by how much the outage that a leader finds may be too short: it
	// counts from the last round of renewals, and some may not have come through.
	stallBegins, stallSlack = 500, 400
	// quiet is how long no write and no heartbeat may have been acknowledged before
	// that counts as an outage, whatever the reason.
	quiet = 400
)

// LeaseStats is what became of the leases of a run.
type LeaseStats struct {
	// Ended counts the lives that ended by expiry, Calm those of them which nothing
	// disturbed, Left those that ended otherwise.
	Ended, Calm, Left int
	// Late is how long after their ttl the latest of the calm ended, LateAny of all;
	// Early is the least time between the ttl of the last acknowledged renewal and the
	// end.
	Late, LateAny, Early time.Duration
	// Beats counts acknowledged renewals, Gone the answers that an instance is gone.
	Beats, Gone int
}

func (s *LeaseStats) String() string {
	return fmt.Sprintf("%d ran out, %d of them in calm, at most %v late (%v in trouble), at least %v after the ttl; %d ended otherwise; %d renewals, %d were told of as gone",
		s.Ended, s.Calm, s.Late, s.LateAny, s.Early, s.Left, s.Beats, s.Gone)
}

// touch is an attempt that may have renewed a lease. Times are Unix ms, as stamps are.
type touch struct {
	sent, back int64
	outcome    Outcome
	gone       bool
	index      uint64 // of a registration
	created    bool   // the instance was not there before it
	record     int64
}

// leaseKey is an instance with a lease and all that its owner did.
type leaseKey struct {
	key     string
	ttl     int64 // ms
	touches []touch
	removed []touch // acknowledged deregistrations
}

// checkLeases holds what the owners did against what became of their leases.
func (c *checks) checkLeases() {
	c.Leases.Early = time.Hour
	// Stamps are of the wall clock: where it was set during the run, by so much less is
	// known.
	c.grain = stampUnit + (c.drift[1]-c.drift[0]+999_999)/1e6
	if c.grain > 50*stampUnit {
		c.unsure("the wall clock was set by %d ms during the run", c.grain)
	}
	trouble := c.trouble()
	for _, k := range c.leaseKeys() {
		c.checkTold(k)
		c.checkLives(k, trouble)
	}
	if c.Leases.Ended == 0 {
		c.Leases.Early = 0
	}
}

// leaseKeys gathers by instance.
func (c *checks) leaseKeys() []*leaseKey {
	by := map[string]*leaseKey{}
	note := func(r *Record, key string, gone bool) {
		if by[key] == nil {
			by[key] = &leaseKey{key: key}
		}
		k := by[key]
		k.ttl = max(k.ttl, r.TTL)
		t := touch{
			sent: r.Wall / 1e6, back: (r.Wall + r.Return - r.Call + 999_999) / 1e6,
			outcome: r.Outcome, gone: gone, index: r.Index, created: r.Created, record: r.ID,
		}
		if r.Kind == KindDeregister {
			if r.Outcome == OK {
				k.removed = append(k.removed, t)
			}
			return
		}
		if r.Status > 0 || r.Outcome == Unknown { // else it never left
			k.touches = append(k.touches, t)
		}
	}
	for _, r := range c.writes {
		note(r, keyOf(r.Service, r.Instance), false)
	}
	for _, r := range c.beats {
		for _, key := range r.Beat {
			note(r, key, slices.Contains(r.Gone, key))
		}
	}
	var all []*leaseKey
	for _, k := range by {
		if k.ttl > 0 {
			slices.SortFunc(k.touches, func(a, b touch) int { return cmp.Compare(a.sent, b.sent) })
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b *leaseKey) int { return cmp.Compare(a.key, b.key) })
	return all
}

// ends reports whether an event takes the instance away.
func ends(e Event) bool {
	return e.Type == string(muster.EventDeregistered) || e.Type == string(muster.EventExpired)
}

// checkTold holds the answers to heartbeats against the log: nobody is told that an
// instance is gone which is there, or that one is renewed which is gone.
func (c *checks) checkTold(k *leaseKey) {
	events := c.log.keys[k.key]
	for _, t := range k.touches {
		if t.outcome != OK || t.index > 0 {
			continue
		}
		if !t.gone {
			c.Leases.Beats++
		} else {
			c.Leases.Gone++
		}
		// What the owner had been told before it sent the heartbeat.
		var reg, dereg touch
		for _, o := range k.touches {
			if o.index > reg.index && o.outcome == OK && o.back < t.sent {
				reg = o
			}
		}
		for _, o := range k.removed {
			if o.index > dereg.index && o.back < t.sent {
				dereg = o
			}
		}
		switch {
		case t.gone && reg.index > dereg.index && reg.index > 0 && !c.log.restoredBy(reg.index, t.back+c.grain):
			n := slices.IndexFunc(events, func(e Event) bool { return e.Index > reg.index && ends(e) })
			if n < 0 || events[n].Time > t.back+c.grain {
				c.violate("lease", []int64{reg.record, t.record}, "%s was told that it is gone, and had been registered at %d", k.key, reg.index)
			}
		case !t.gone && dereg.index > reg.index && !c.log.restoredBy(dereg.index, t.back+c.grain):
			if !slices.ContainsFunc(events, func(e Event) bool { return e.Index > dereg.index && !ends(e) }) {
				c.violate("lease", []int64{dereg.record, t.record}, "a heartbeat of %s was acknowledged, which had been deregistered at %d", k.key, dereg.index)
			}
		}
	}
}

// life is an instance from its registration, or from a restore, to its end.
type life struct {
	from, to Event
	held     bool // the governor had a hand in it
}

// lives are those that ended.
func (c *checks) lives(k *leaseKey) (lives []life) {
	events := slices.Clone(c.log.keys[k.key])
	events = append(events, c.log.restores...)
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.Index, b.Index) })
	var now life
	for _, e := range events {
		switch {
		case e.Service == "": // whether it is there after a restore only its end will tell
			now = life{from: e}
		case ends(e):
			now.to = e
			lives = append(lives, now)
			now = life{}
		case e.Type == string(muster.EventRegistered):
			now = life{from: e}
		case e.Type == string(muster.EventStatus):
			now.held = true
		}
	}
	return lives
}

// checkLives asks that no lease ended early and none late.
func (c *checks) checkLives(k *leaseKey, trouble []gap) {
	for _, l := range c.lives(k) {
		expired := l.to.Type == string(muster.EventExpired)
		if expired {
			c.checkEarly(k, l)
		}
		if l.from.Index == 0 {
			continue // it began before the log did
		}
		heard, record := l.from.Time, int64(0)
		for _, t := range k.touches {
			if t.sent < l.from.Time-quiet || t.sent > l.to.Time {
				continue
			}
			at := min(t.back, l.to.Time)
			if t.outcome != OK {
				// It may have been read by whoever had been stopped, when he went on.
				at = t.back
				for _, g := range trouble {
					if g.from <= t.back && g.to >= t.sent {
						at = max(at, g.to)
					}
				}
				at += quiet
			}
			if at > heard {
				heard, record = at, t.record
			}
		}
		limit := latest(heard, k.ttl, trouble)
		calm := !l.held && !slices.ContainsFunc(trouble, func(g gap) bool { return g.from <= l.to.Time && g.to >= heard })
		if l.held {
			limit += lateHeld
		}
		late := l.to.Time - heard - k.ttl
		if l.to.Time > limit {
			c.violate("lease", []int64{record}, "%s (ttl %d ms), last heard from at %d, ended at %d (%s), %d ms late; it should have by %d", k.key, k.ttl, heard, l.to.Time, l.to.Cause, late, limit)
		}
		if !expired {
			c.Leases.Left++
			continue
		}
		c.Leases.Ended++
		c.Leases.LateAny = max(c.Leases.LateAny, time.Duration(late)*time.Millisecond)
		if calm {
			c.Leases.Calm++
			c.Leases.Late = max(c.Leases.Late, time.Duration(late)*time.Millisecond)
		}
	}
}

// checkEarly holds the end of a life against all acknowledged renewals: those that
// were sent before it, and those that renewed what had gone.
func (c *checks) checkEarly(k *leaseKey, l life) {
	next := int64(math.MaxInt64) // when the instance came back, in the same entry maybe
	events := c.log.keys[k.key]
	events = events[slices.Index(events, l.to)+1:]
	if n := slices.IndexFunc(events, func(e Event) bool { return !ends(e) }); n >= 0 {
		next = events[n].Time
	}
	for _, t := range k.touches {
		if t.outcome != OK || t.gone || t.index > l.to.Index || t.index == l.to.Index && t.created {
			continue // it renewed nothing, or came after
		}
		after := l.to.Time - (t.sent + k.ttl)
		away := c.stalled(t.sent, l.to.Time)
		if after >= -c.grain && away <= after+stallSlack {
			if t.index >= l.from.Index || t.index == 0 {
				c.Leases.Early = min(c.Leases.Early, time.Duration(after)*time.Millisecond)
			}
			continue
		}
		if t.index == 0 && (next <= t.back+c.grain || c.log.restoredBy(l.to.Index, t.back+c.grain)) {
			continue // it may have renewed what came after
		}
		text := ""
		if away > 0 {
			text = fmt.Sprintf(", and for %d ms since then no majority was able to work", away)
		}
		c.violate("lease", []int64{t.record}, "%s (ttl %d ms) ended at %d (index %d), %d ms after the ttl after the sending of an acknowledged renewal, at %d%s", k.key, k.ttl, l.to.Time, l.to.Index, after, t.sent, text)
		return
	}
}

// stalled is how much of [from, to] no majority was able to work, as far as that is sure.
func (c *checks) stalled(from, to int64) (sum int64) {
	for i := range c.faults {
		f := &c.faults[i]
		if !f.Stall || f.Heal.IsZero() {
			continue
		}
		begun, over := f.Start.UnixMilli()+stallBegins, f.Heal.UnixMilli()
		sum += max(0, min(over, to)-max(begun, from))
	}
	return sum
}

// latest is the time by which a lease has to have ended.
func latest(heard, ttl int64, trouble []gap) int64 {
	limit := heard + ttl + lateCalm
	for _, g := range trouble {
		if g.to < heard || g.from > limit {
			continue
		}
		limit += g.to - max(g.from, heard) + ttl + lateFault
		if g.anew {
			limit = max(limit, g.to+ttl+lateFault)
		}
	}
	return limit
}

// gap is a time of trouble, in Unix ms.
type gap struct {
	from, to int64
	anew     bool // all leases got a full ttl from its end
}

// trouble is when expiry may have been held up: during a fault, while nothing was
// acknowledged, where requests were shed, at a restore. In order of time.
func (c *checks) trouble() (all []gap) {
	wall := func(t time.Time) int64 { return t.UnixMilli() }
	begun := wall(c.h.start)
	end := wall(c.h.start.Add(time.Duration(c.last)))
	for i := range c.faults {
		f := &c.faults[i]
		all = append(all, gap{wall(f.Start), wall(f.End(c.h.start.Add(time.Duration(c.last)))), f.Stall || f.Restore != nil})
	}
	for _, e := range c.log.restores {
		all = append(all, gap{e.Time - quiet, e.Time + quiet, true})
	}
	var acks []int64
	for _, of := range [][]*Record{c.writes, c.beats} {
		for _, r := range of {
			if r.Outcome == OK {
				acks = append(acks, (r.Wall+r.Return-r.Call)/1e6)
			}
		}
	}
	for _, r := range c.overload {
		all = append(all, gap{r.Wall / 1e6, r.Wall/1e6 + 2*fleetTTL.Milliseconds(), false})
	}
	slices.Sort(acks)
	last := begun
	for _, at := range append(acks, end) {
		if at-last > quiet {
			all = append(all, gap{last, at, false})
		}
		last = max(last, at)
	}
	slices.SortFunc(all, func(a, b gap) int { return cmp.Compare(a.from, b.from) })
	return joined(all)
}

// joined makes one of those that overlap.
func joined(all []gap) (out []gap) {
	for _, g := range all {
		if n := len(out); n > 0 && g.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, g.to)
			out[n-1].anew = out[n-1].anew || g.anew
			continue
		}
		out = append(out, g)
	}
	return out
}
