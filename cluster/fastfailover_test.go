package cluster_test

import (
	"testing"

	"github.com/muster-registry/muster/cluster"
)

// fastElections is how many elections n has begun because a leader's process was
// gone.
func fastElections(t *testing.T, n *node) float64 {
	t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "muster_cluster_fast_elections_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

func electionsOf(t *testing.T, nodes []*node) (sum float64) {
	t.Helper()
	for _, n := range nodes {
		sum += fastElections(t, n)
	}
	return sum
}

// TestDeadLeaderIsNoticedAtOnce: the survivors do not wait for raft's timers when
// the leader's process is gone, also the second time, and only then: not when it
// hands over, nor when it is cut off, nor where they were told not to.
func TestDeadLeaderIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	slow := func(n *node) { n.cfg.Timing.Profile = cluster.ProfileSlow }
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		g := newGroup(t, 3, slow).start()
		for range 3 {
			leader := g.leader()
			leader.write("before")
			g.converge()
			rest := g.others(leader)
			before := electionsOf(t, rest)
			leader.kill()
			g.leader(rest...)
			if electionsOf(t, rest) == before {
				t.Error("the survivors waited for raft's timers")
			}
			leader.start()
			g.leader()
			leader.write("after")
		}
	})
	for name, lose := range map[string]func(g *group, leader *node){
		"handed over": func(_ *group, leader *node) { leader.stop() },
		"cut off":     func(g *group, leader *node) { g.isolate(leader) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGroup(t, 3).start()
			leader := g.leader()
			rest := g.others(leader)
			lose(g, leader)
			g.leader(rest...)
			rest[0].write("after")
			if n := electionsOf(t, rest); n > 0 {
				t.Errorf("%v elections were begun for a leader whose process is there", n)
			}
			g.links.HealAll()
		})
	}
	t.Run("turned off", func(t *testing.T) {
		t.Parallel()
		g := newGroup(t, 3, func(n *node) { n.cfg.Timing.SlowFailover = true }).start()
		leader := g.leader()
		rest := g.others(leader)
		leader.kill()
		g.leader(rest...)
		if n := electionsOf(t, rest); n > 0 {
			t.Errorf("%v elections were begun", n)
		}
	})
}
