package balancer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-registry/muster"
)

// defaultSettings hold for views that bring none.
var defaultSettings = muster.DefaultSettings()

func settingsOf(v *muster.View) *muster.Settings {
	if v.Settings != nil {
		return v.Settings
	}
	return &defaultSettings
}

// build makes the pool that follows old, which may be nil.
func (s *seat) build(old *pool, now time.Time, at moment) *pool {
	v := s.view
	p := &pool{view: v, settings: settingsOf(v), strategy: table[0], whole: !v.Partial(), until: never}
	if st, err := ParseStrategy(p.settings.Strategy); err == nil {
		p.strategy = st
	}
	if old != nil {
		p.svc = old.svc
	}
	p.svc = s.b.service(v.Key(), p.svc, at)
	p.svc.follow(v, p.settings)
	p.gen = p.svc.gen.Load() // before looking: what changes meanwhile makes another pool

	healthy := choose(v, isHealthy)
	ejected, next := eject(v, p.svc.tripped(at), p.settings.MaxEjected*len(healthy)/100)
	p.until = next
	usable := len(healthy) - len(ejected)
	insts, k := healthy, normal
	switch {
	case usable*100 < p.settings.PanicThreshold*len(v.Instances):
		insts, k, ejected = choose(v, mayLive), panicking, nil
		if len(insts) == 1 && insts[0].Status == muster.StatusDown {
			insts = nil // with nobody to compare it to, its check is believed
		}
	case usable == 0:
		insts, k, ejected = choose(v, isRoutable), lastResort, nil
	}
	if len(insts) == 0 {
		p.nobody, p.roster = nobody(v), &roster{}
		return p
	}
	if p.panic = k == panicking; p.panic {
		p.result = resultPanic
	}
	up, holds := rampAt(insts, time.Duration(p.settings.SlowStart), now)
	if holds > 0 {
		p.until = min(p.until, at.add(holds))
	}
	if old != nil && old.roster.fits(k, up, p.svc) && len(old.roster.insts) == len(insts) {
		p.roster = old.roster // and with it the hash tables
	} else {
		p.roster = newRoster(insts, v.Index, k, up, p.svc)
	}
	p.seat(ejected)
	if old != nil && old.all.n > 0 {
		p.all.begin(old.all.turn.Load(), old.all.phase.Load())
	} else {
		p.all.begin(s.b.random()>>1, s.b.random()>>1)
	}
	return p
}

// The rules of who may be picked, by what the registry says.

func isRoutable(i *muster.Instance) bool {
	return i.Routable && i.Status == muster.StatusUp && i.Weight > 0
}

func isHealthy(i *muster.Instance) bool { return isRoutable(i) && !i.Suspect }

// mayLive reports whether a panic believes i to be alive.
func mayLive(i *muster.Instance) bool {
	switch {
	case i.Weight <= 0:
		return false
	case i.Status == muster.StatusUp:
		return true
	case i.Status != muster.StatusDown:
		return false
	}
	switch i.StatusCause {
	case muster.CauseLeaseExpired, muster.CauseReleased, muster.CauseLeaseRevoked:
		return false // nobody has heard from it
	}
	return true
}

func choose(v *muster.View, rule func(*muster.Instance) bool) []*muster.Instance {
	insts := make([]*muster.Instance, 0, len(v.Instances))
	for _, i := range v.Instances {
		if rule(i) {
			insts = append(insts, i)
		}
	}
	return insts
}

// eject says who of a view is ejected: of those whose breaker is not closed, the
// ones that tripped first, as many as most allows. It also says when that changes
// by itself.
func eject(v *muster.View, tripped []trip, most int) (map[string]trip, moment) {
	next := never
	here := tripped[:0]
	for _, t := range tripped {
		next = min(next, t.until)
		if i := v.Find(t.rec.id); i != nil && isHealthy(i) && t.rec.meet(i, v.Index) {
			here = append(here, t)
		}
	}
	slices.SortFunc(here, func(a, b trip) int {
		return cmp.Or(cmp.Compare(a.since, b.since), strings.Compare(a.rec.id, b.rec.id))
	})
	ejected := make(map[string]trip, min(most, len(here)))
	for _, t := range here[:min(most, len(here))] {
		ejected[t.rec.id] = t
	}
	return ejected, next
}

// seat gives the instances of the pool's roster their stands and positions.
func (p *pool) seat(ejected map[string]trip) {
	r := p.roster
	n := len(r.insts)
	if len(ejected) > 0 {
		p.state = make([]stand, n)
		p.places = make([]int32, 0, n-len(ejected))
		for place, i := range r.insts {
			t, is := ejected[i.ID]
			switch {
			case !is:
				p.places = append(p.places, int32(place))
			case t.state == HalfOpen:
				p.state[place] = tried
				p.trials = append(p.trials, trial{int32(place), t.rec})
			default:
				p.state[place] = out
			}
		}
		n = len(p.places)
	}
	p.all.span, p.all.n = r.whole, int32(n)
	p.meanWeight = 1
	if r.weights != nil {
		var sum float64
		for pos := range int32(n) {
			sum += float64(r.weights[p.place(pos)])
		}
		p.meanWeight = sum / float64(n)
	}
}

// nobody is the error of a pick from v, which has nobody to pick.
func nobody(v *muster.View) *muster.Error {
	e := &muster.Error{Code: muster.CodeNoInstance, RetryAfter: time.Second}
	if v.EmptyReason == muster.EmptyFiltered {
		e.Detail = fmt.Sprintf("no instance of service %s passes the filters", v.Service)
		return e
	}
	if len(v.Instances) == 0 {
		e.Detail = fmt.Sprintf("service %s has no instance", v.Service)
		if v.EmptyReason != "" {
			e.Detail += " (" + string(v.EmptyReason) + ")"
		}
		return e
	}
	count := map[string]int{}
	for _, i := range v.Instances {
		why := string(i.Status)
		switch {
		case i.Weight <= 0:
			why = "of weight 0"
		case i.Status == muster.StatusDown && !mayLive(i):
			why = "expired"
		}
		count[why]++
	}
	var parts []string
	for why, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(parts)
	e.Detail = fmt.Sprintf("no instance of service %s can be picked: %s", v.Service, strings.Join(parts, ", "))
	return e
}
