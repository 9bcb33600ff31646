package lease

import (
	"fmt"
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

// The rules of the governor. A lease that ran out is held, not removed, when more
// than holdAbove leases and more than holdShare of those that lived ran out
// within its window, or when that is more than half of a service of at least
// holdService instances.
const (
	minWindow   = 5 * time.Second
	maxWindow   = time.Minute
	holdAbove   = 10
	holdPercent = 15
	holdService = 10
	// Held leases that have been held for long enough go in slices.
	slicePercent = 15
	sliceEvery   = 5 * time.Second
)

// Governor tells a mass loss from ordinary loss and says what to hold. It is a
// calculation over counts that it is fed, in order of time: it decides nothing
// about who is due. It is not safe for concurrent use.
//
// A lease is live from Join to Leave. Deliberate ends are a Leave; only RanOut
// counts as loss. The counts reach back one minute.
type Governor struct {
	switches Switches
	live     series
	ranOut   series // ever
	services map[muster.ServiceKey]*serviceLoss
	pruned   time.Duration
	verdicts []Verdict // scratch of Judge

	slice     int // of the release that is going on
	nextSlice time.Duration
}

// serviceLoss is the same in one service, counted in instances.
type serviceLoss struct {
	live   series
	ranOut series
}

// NewGovernor returns a governor; nil switches leave it on everywhere.
func NewGovernor(s Switches) *Governor {
	return &Governor{switches: s, services: map[muster.ServiceKey]*serviceLoss{}}
}

// Join says that a lease lives that hangs in these services.
func (g *Governor) Join(now time.Duration, services []muster.ServiceKey) {
	g.live.add(now, 1)
	g.Attach(now, services)
}

// Leave says that a lease does not live any more.
func (g *Governor) Leave(now time.Duration, services []muster.ServiceKey) {
	g.live.add(now, -1)
	g.Detach(now, services)
}

// Attach says that a live lease hangs in these services from now on.
func (g *Governor) Attach(now time.Duration, services []muster.ServiceKey) {
	for _, k := range services {
		g.service(k).live.add(now, 1)
	}
}

// Detach says that a live lease does not hang in these services any more.
func (g *Governor) Detach(now time.Duration, services []muster.ServiceKey) {
	for _, k := range services {
		g.service(k).live.add(now, -1)
	}
}

// RanOut counts a lease as lost, whether it is removed or held.
func (g *Governor) RanOut(now time.Duration, services []muster.ServiceKey) {
	g.ranOut.add(now, 1)
	for _, k := range services {
		g.service(k).ranOut.add(now, 1)
	}
	if now-g.pruned > maxWindow {
		g.prune(now)
	}
}

func (g *Governor) service(k muster.ServiceKey) *serviceLoss {
	s := g.services[k]
	if s == nil {
		s = new(serviceLoss)
		g.services[k] = s
	}
	return s
}

// prune forgets services that have been empty and without loss for a window.
func (g *Governor) prune(now time.Duration) {
	g.pruned = now
	for k, s := range g.services {
		s.live.prune(now)
		if s.live.value() == 0 && len(s.live.steps) <= 1 && s.ranOut.at(now) == s.ranOut.at(now-maxWindow) {
			delete(g.services, k)
		}
	}
}

// Due is a lease that has run out.
type Due struct {
	TTL      time.Duration
	Services []muster.ServiceKey
	// Counted: RanOut has counted it already.
	Counted bool
}

// Verdict says what is to become of a lease that is due.
type Verdict struct {
	Hold   bool
	Reason string // why it is held, for people
}

// Window is the time over which losses count together for a lease of that TTL.
func Window(ttl time.Duration) time.Duration { return min(max(ttl, minWindow), maxWindow) }

// Judge says which of all leases that are due now to hold. What it returns is good
// until the next call.
func (g *Governor) Judge(now time.Duration, due []Due) []Verdict {
	if cap(g.verdicts) < len(due) || cap(g.verdicts) > 4*max(len(due), MaxDecision) {
		g.verdicts = make([]Verdict, len(due))
	}
	verdicts := g.verdicts[:len(due)]
	clear(verdicts)
	if g.switches != nil && !g.switches.GovernorOn() {
		return verdicts
	}
	n, in := 0, make(map[muster.ServiceKey]int)
	for i := range due {
		if due[i].Counted {
			continue
		}
		n++
		for _, k := range due[i].Services {
			in[k]++
		}
	}
	overall := map[time.Duration]string{} // as overall says, by window: a million are due at once
	for i := range due {
		w := Window(due[i].TTL)
		if _, known := overall[w]; !known {
			overall[w] = g.overall(now, w, n)
		}
		if reason := g.judge(now, &due[i], overall[w], in); reason != "" {
			verdicts[i] = Verdict{Hold: true, Reason: reason}
		}
	}
	return verdicts
}

// overall returns why to hold any lease of that window, "" if that is no reason: too
// many ran out, of which due are due.
func (g *Governor) overall(now, w time.Duration, due int) string {
	n := g.ranOut.value() - g.ranOut.at(now-w) + due
	if lived := g.live.at(now - w); n > holdAbove && n*100 > lived*holdPercent {
		return fmt.Sprintf("%d of %d leases ran out within %s", n, lived, w)
	}
	return ""
}

// judge returns why to hold d, "" if it is not to be held: overall, if d is guarded,
// or for the loss in one of its services, of which so many instances are due.
func (g *Governor) judge(now time.Duration, d *Due, overall string, in map[muster.ServiceKey]int) string {
	w := Window(d.TTL)
	guarded := func(k muster.ServiceKey) bool { return g.switches == nil || g.switches.GovernorOnFor(k) }
	if overall != "" && (len(d.Services) == 0 || slices.ContainsFunc(d.Services, guarded)) {
		return overall
	}
	for i, k := range d.Services {
		s := g.services[k]
		if s == nil || i > 0 && k == d.Services[i-1] || !guarded(k) {
			continue
		}
		n := s.ranOut.value() - s.ranOut.at(now-w) + in[k]
		if size := s.live.at(now - w); size >= holdService && 2*n > size {
			return fmt.Sprintf("%d of %d instances of %s ran out within %s", n, size, k, w)
		}
	}
	return ""
}

// Release says how many of the held leases whose time is up to let go now, given
// how many are held in all. The first slice of a release sets the size of all.
func (g *Governor) Release(now time.Duration, held, ripe int) int {
	if ripe == 0 {
		if now >= g.nextSlice {
			g.slice = 0
		}
		return 0
	}
	if now < g.nextSlice {
		return 0
	}
	if g.slice == 0 {
		g.slice = (held*slicePercent + 99) / 100
	}
	g.nextSlice = now + sliceEvery
	return min(ripe, g.slice)
}
