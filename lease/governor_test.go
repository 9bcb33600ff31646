package lease_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/lease"
)

type switches struct {
	off         bool
	offServices map[muster.ServiceKey]bool
}

func (s *switches) GovernorOn() bool                       { return !s.off }
func (s *switches) GovernorOnFor(k muster.ServiceKey) bool { return !s.offServices[k] }

var web = []muster.ServiceKey{{Namespace: "default", Service: "web"}}
var api = []muster.ServiceKey{{Namespace: "default", Service: "api"}}

// held is how many of n leases of a service the governor holds that are due.
func held(g *lease.Governor, now time.Duration, n int, ttl time.Duration, services []muster.ServiceKey) int {
	due := make([]lease.Due, n)
	for i := range due {
		due[i] = lease.Due{TTL: ttl, Services: services}
	}
	count := 0
	for _, v := range g.Judge(now, due) {
		if v.Hold != (v.Reason != "") {
			panic("a verdict without its reason")
		}
		if v.Hold {
			count++
		}
	}
	return count
}

func join(g *lease.Governor, now time.Duration, n int, services []muster.ServiceKey) {
	for range n {
		g.Join(now, services)
	}
}

func lose(g *lease.Governor, now time.Duration, n int, services []muster.ServiceKey) {
	for range n {
		g.RanOut(now, services)
		g.Leave(now, services)
	}
}

func TestGovernorRules(t *testing.T) {
	const s = time.Second
	const ttl = 10 * s
	for name, c := range map[string]struct {
		before func(g *lease.Governor)
		due    int
		ttl    time.Duration
		on     []muster.ServiceKey
		want   int
	}{
		"15 % of all are removed":               {func(g *lease.Governor) { join(g, 0, 100, nil) }, 15, ttl, nil, 0},
		"more are held":                         {func(g *lease.Governor) { join(g, 0, 100, nil) }, 16, ttl, nil, 16},
		"ten are never a mass":                  {func(g *lease.Governor) { join(g, 0, 20, nil) }, 10, ttl, nil, 0},
		"eleven of few are":                     {func(g *lease.Governor) { join(g, 0, 20, nil) }, 11, ttl, nil, 11},
		"half of a service is removed":          {func(g *lease.Governor) { join(g, 0, 10, web); join(g, 0, 990, api) }, 5, ttl, web, 0},
		"more than half of a service is held":   {func(g *lease.Governor) { join(g, 0, 10, web); join(g, 0, 990, api) }, 6, ttl, web, 6},
		"a service of nine is too small":        {func(g *lease.Governor) { join(g, 0, 9, web); join(g, 0, 991, api) }, 9, ttl, web, 0},
		"what ran out within the window counts": {func(g *lease.Governor) { join(g, 0, 100, nil); lose(g, 95*s, 10, nil) }, 6, ttl, nil, 6},
		"what ran out before does not":          {func(g *lease.Governor) { join(g, 0, 100, nil); lose(g, 85*s, 15, nil) }, 11, ttl, nil, 0},
		"a short TTL looks back five seconds":   {func(g *lease.Governor) { join(g, 0, 100, nil); lose(g, 96*s, 10, nil) }, 6, s, nil, 6},
		"a short TTL looks back no further":     {func(g *lease.Governor) { join(g, 0, 100, nil); lose(g, 94*s, 10, nil) }, 6, s, nil, 0},
		"a long TTL looks back a minute":        {func(g *lease.Governor) { join(g, 0, 100, nil); lose(g, 50*s, 10, nil) }, 6, time.Hour, nil, 6},
		"deregistrations do not count": {func(g *lease.Governor) {
			join(g, 0, 100, nil)
			for range 80 {
				g.Leave(95*s, nil)
			}
		}, 15, ttl, nil, 0},
		"those that came within the window do not dilute": {func(g *lease.Governor) { join(g, 0, 100, nil); join(g, 95*s, 1000, nil) }, 16, ttl, nil, 16},
		"a shared lease counts for each of its instances": {func(g *lease.Governor) {
			join(g, 0, 4, web)
			g.Join(0, []muster.ServiceKey{web[0], web[0], web[0], web[0], web[0], web[0], web[0]})
		}, 6, ttl, web, 6},
	} {
		t.Run(name, func(t *testing.T) {
			g := lease.NewGovernor(nil)
			c.before(g)
			if got := held(g, 100*s, c.due, c.ttl, c.on); got != c.want {
				t.Errorf("held %d of %d, want %d", got, c.due, c.want)
			}
		})
	}
}

func TestGovernorFirstPartGoes(t *testing.T) {
	g := lease.NewGovernor(nil)
	join(g, 0, 1000, nil)
	removed, kept := 0, 0
	for now := 100 * time.Second; now < 105*time.Second; now += 100 * time.Millisecond {
		n := held(g, now, 10, 10*time.Second, nil)
		kept += n
		removed += 10 - n
		lose(g, now, 10, nil)
	}
	if removed != 150 || kept != 350 {
		t.Errorf("removed %d and held %d of 500, want 150 and 350", removed, kept)
	}
}

func TestGovernorSwitches(t *testing.T) {
	sw := &switches{}
	g := lease.NewGovernor(sw)
	join(g, 0, 50, web)
	join(g, 0, 50, api)
	now := time.Minute
	if got := held(g, now, 40, 10*time.Second, web); got != 40 {
		t.Fatalf("held %d, want 40", got)
	}
	sw.offServices = map[muster.ServiceKey]bool{web[0]: true}
	if got := held(g, now, 40, 10*time.Second, web); got != 0 {
		t.Errorf("held %d of a service whose governor is off", got)
	}
	if got := held(g, now, 40, 10*time.Second, api); got != 40 {
		t.Errorf("held %d of another service, want 40", got)
	}
	if got := held(g, now, 40, 10*time.Second, append(web, api...)); got != 40 {
		t.Errorf("held %d leases that hang in both, want 40", got)
	}
	sw.off = true
	if got := held(g, now, 40, 10*time.Second, api); got != 0 {
		t.Errorf("held %d while the governor is off", got)
	}
}

func TestGovernorRelease(t *testing.T) {
	g := lease.NewGovernor(nil)
	const s = time.Second
	left := 100
	var slices []int
	for now := time.Duration(0); left > 0 && now < time.Minute; now += 100 * time.Millisecond {
		if n := g.Release(now, left, left); n > 0 {
			if now%(5*s) != 0 {
				t.Errorf("a slice at %v", now)
			}
			slices = append(slices, n)
			left -= n
		}
	}
	if len(slices) != 7 || slices[0] != 15 || slices[5] != 15 || slices[6] != 10 {
		t.Errorf("slices %v, want six of 15 and one of 10", slices)
	}
	if n := g.Release(2*time.Minute, 10, 0); n != 0 {
		t.Errorf("released %d of none that is ripe", n)
	}
}

// TestGovernorIsDeterministic: the same calls give the same verdicts, and fewer
// losses never hold more.
func TestGovernorIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, fewer := lease.NewGovernor(nil), lease.NewGovernor(nil), lease.NewGovernor(nil)
		now := time.Duration(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "gap"))
			n := rapid.IntRange(0, 30).Draw(t, "n")
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				for _, g := range []*lease.Governor{a, b, fewer} {
					join(g, now, n, web)
				}
			case 1:
				for _, g := range []*lease.Governor{a, b} {
					lose(g, now, n, web)
				}
				for range n { // deliberate here
					fewer.Leave(now, web)
				}
			case 2:
				ttl := time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(t, "ttl"))
				x, y, z := held(a, now, n, ttl, web), held(b, now, n, ttl, web), held(fewer, now, n, ttl, web)
				if x != y || z > x {
					t.Fatalf("held %d, %d, and %d with fewer losses", x, y, z)
				}
			}
		}
	})
}
