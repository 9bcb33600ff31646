package clustertest_test

import (
	"fmt"
	"testing"
	"time"
)

// TestSimulationScripts kills an owner, lets one fault happen before its lease has
// ended, and holds the end against the three bounds as they are written.
func TestSimulationScripts(t *testing.T) {
	const ttl = 3 * time.Second
	stays := func(*world, *machine) func() { return func() {} }
	for _, c := range []struct {
		name  string
		begin func(w *world, n *machine) func()
		bound func(outage time.Duration) time.Duration // beyond the TTL
		lasts time.Duration
	}{
		{"nothing", stays, stable, 0},
		{"transfer", (*world).transfer, across, 0},
		{"kill", (*world).downtime, across, 0},
		{"cut", (*world).isolation, across, 0},
		{"cut, mended late", (*world).isolation, across, 4 * time.Second},
		{"mute", (*world).mute, across, 0},
		{"deaf", (*world).deaf, across, 0},
		{"pause", (*world).pause, across, 0},
		{"pause, ended late", (*world).pause, across, 4 * time.Second},
		{"hung disk, cut", (*world).hangCut, across, 0},
		{"pause of all", (*world).pauseAll, across, 8 * time.Second},
		{"restart of all", (*world).downtimeAll, fallback(ttl), 500 * time.Millisecond},
	} {
		for _, nodes := range []int{3, 5} {
			t.Run(fmt.Sprintf("%s/%d nodes", c.name, nodes), func(t *testing.T) {
				w := simulate(t, options{nodes: nodes, seed: 1}, func(w *world) {
					for i := range 4 {
						w.owner(i, ttl, false)
					}
					dying, die := w.owner(4, ttl, false)
					w.sleep(2*ttl + time.Second)
					close(die)
					w.sleep(200 * time.Millisecond)
					began, before := time.Now(), w.failovers()
					end := c.begin(w, w.leader())
					if c.lasts > 0 {
						w.sleep(c.lasts)
					} else {
						w.await(3*time.Second, func() bool { return w.failovers() > before })
					}
					end()
					w.waitLeader(5 * time.Second)
					w.finish(3 * ttl)
					w.checkEnd(dying.lease(), began, c.bound)
				})
				w.report(t)
			})
		}
	}
}

func stable(time.Duration) time.Duration        { return 300 * time.Millisecond }
func across(outage time.Duration) time.Duration { return outage + 500*time.Millisecond }
func fallback(ttl time.Duration) func(time.Duration) time.Duration {
	return func(outage time.Duration) time.Duration { return ttl + across(outage) }
}

// checkEnd holds the end of a lease against a bound. The outage is all the time in
// which nobody could lead, from the beginning of the fault to the lease's end.
func (w *world) checkEnd(l held, began time.Time, bound func(time.Duration) time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ended, ok := w.history.ended(l.keys[0], l.id.Index())
	outage := overlap(w.history.outages(), began.Add(-simGap), ended)
	late := ended.Sub(l.tries[len(l.tries)-1]) - l.ttl
	if !ok || late > bound(outage) {
		w.violations = append(w.violations, violation{"late", fmt.Sprintf("ended %v (%v) after its TTL, with an outage of %v; want at most %v", late, ok, outage, bound(outage))})
	}
}

// TestSimulationTwoFailovers lets a leader find an outage and die before it has told
// everybody of it. Who led before, and was cut off then, is the only one left that
// knows of the owner's last heartbeat; the lease must live nevertheless, because
// its owner could not beat anywhere in all that time.
func TestSimulationTwoFailovers(t *testing.T) {
	w := simulate(t, options{nodes: 3, seed: 1}, func(w *world) {
		a := w.leader()
		b, c := w.nodes[(a.index+1)%3], w.nodes[(a.index+2)%3]
		for i := range 9 {
			w.owner(i, time.Second, false)
		}
		w.sleep(4 * time.Second)
		mendA := w.isolation(a) // the heartbeats of this time are known to b and c
		w.await(4*time.Second, func() bool { l := w.leader(); return l == b || l == c })
		if w.leader() == c {
			b, c = c, b
		}
		w.waitLeader(4 * time.Second)
		w.sleep(time.Second)
		mendB := w.isolation(b) // nobody leads
		w.sleep(4 * time.Second)
		before := w.failovers()
		mendA() // c leads, and finds an outage of more than 4 s
		w.await(4*time.Second, func() bool { return w.failovers() > before })
		if l := w.leader(); l != c {
			t.Errorf("another leads than the one that has the whole log")
		}
		w.sleep(10 * time.Millisecond)
		w.kill(c)
		mendB() // a or b leads, with what a and b know
		w.await(4*time.Second, func() bool { return w.failovers() > before+1 })
		w.sleep(2 * time.Second)
		w.start(c)
		w.finish(5 * time.Second)
	})
	w.report(t)
}

// TestSimulationMassLoss lets most owners die at once and then the leader: the
// governor holds what they held, and lets it go in the end; nobody alive is lost.
func TestSimulationMassLoss(t *testing.T) {
	const ttl, hold = 5 * time.Second, 95 * time.Second
	w := simulate(t, options{nodes: 3, seed: 1, governor: true}, func(w *world) {
		w.hold = 2 * hold // a new leader begins to hold anew
		var die []chan struct{}
		for i := range 40 {
			_, d := w.owner(i, ttl, false)
			die = append(die, d)
		}
		w.sleep(2 * time.Minute)
		for _, d := range die[10:] {
			close(d)
		}
		w.sleep(ttl + 2*time.Second)
		if w.suspected < 20 {
			t.Errorf("got %d instances held, want most of 30", w.suspected)
		}
		n := w.leader()
		w.kill(n)
		w.sleep(5 * time.Second)
		w.start(n)
		w.finish(2*hold + ttl)
	})
	w.report(t)
}
