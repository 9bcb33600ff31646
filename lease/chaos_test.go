package lease_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

var chaosRuns = flag.Int("chaos", 6, "random runs of the simulation")

// TestChaos cuts, pauses, restarts and deposes at random, singly and together,
// under clients that come and go, and asks whether any promise was broken: no
// early end, nobody alive lost, nobody dead kept for ever.
func TestChaos(t *testing.T) {
	elections := 0
	for run := range *chaosRuns {
		nodes := 3 + 2*(run%2)
		t.Run(fmt.Sprintf("%d nodes/%d", nodes, run), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { elections += chaos(t, nodes) })
		})
	}
	t.Logf("%d leader changes", elections)
	if elections < *chaosRuns*3 {
		t.Errorf("only %d leader changes in %d runs: the test proves little", elections, *chaosRuns)
	}
}

func chaos(t *testing.T, nodes int) int {
	s := newSim(t, nodes)
	var alive, dead []*simClient
	ttls := []time.Duration{5 * time.Second, 8 * time.Second, 30 * time.Second}
	for i := range 45 {
		alive = append(alive, s.client("web", i, ttls[i%len(ttls)]))
	}
	wait(s.ctx, 15*time.Second)
	for range 12 {
		n := s.nodes[rand.N(nodes)]
		s.mu.Lock()
		if s.leader != nil && rand.N(2) == 0 {
			n = s.leader
		}
		s.mu.Unlock()
		length := 100*time.Millisecond + rand.N(5*time.Second)
		switch rand.N(6) {
		case 0:
			s.isolate(n)
		case 1:
			s.pause(n)
		case 2:
			for _, n := range s.nodes {
				s.pause(n)
			}
		case 3:
			s.restart(n)
		case 4:
			s.elect(n)
		case 5: // one link
			s.mu.Lock()
			s.cut[[2]string{n.id, s.nodes[rand.N(nodes)].id}] = true
			s.mu.Unlock()
		}
		wait(s.ctx, length)
		s.heal()
		for _, n := range s.nodes {
			s.resume(n)
		}
		if rand.N(3) == 0 && len(dead) < 5 { // few: the governor is to stay out of it
			c := alive[0]
			alive = alive[1:]
			c.kill()
			dead = append(dead, c)
		}
		wait(s.ctx, rand.N(3*time.Second))
	}
	wait(s.ctx, 75*time.Second) // two TTLs of the longest and more
	for _, c := range alive {
		c.check()
		if !c.lives() {
			t.Errorf("lease %s of ttl %v ended though its owner beats", c.id, c.ttl)
		}
	}
	for _, c := range dead {
		c.check()
		if c.lives() {
			t.Errorf("lease %s, whose owner is dead, lives for ever", c.id)
		}
	}
	return s.elections()
}
