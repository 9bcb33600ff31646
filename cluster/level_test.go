package cluster_test

import (
	"strings"
	"testing"
)

// levels are the feature level of the cluster as n sees it, and those its members know.
func (n *node) levels() (cluster uint64, members []uint64) {
	c := n.Status()
	for _, m := range c.Members {
		members = append(members, m.FeatureLevel)
	}
	return c.FeatureLevel, members
}

// TestFeatureLevel: the level of the cluster rises once every member knows the higher
// one and not before; from then on an older build is kept out, whether it has been a
// member or not, and says why.
func TestFeatureLevel(t *testing.T) {
	g := newGroup(t, 3)
	g.nodes[2].known = 2
	g.start()
	g.leader()
	upgrade := func(n *node, known uint64) {
		t.Helper()
		if err := n.stop(); err != nil {
			t.Fatalf("%s ended with %v", n.cfg.Name, err)
		}
		n.known = known
		n.start()
		g.leader()
	}
	// mixed waits until the leader has heard of all levels, and that for a while: the
	// reconciler looks at least once a second.
	mixed := func(twos int) {
		t.Helper()
		leader := g.leader()
		seen := 0
		eventually(t, "the levels of all members", func() bool {
			level, members := leader.levels()
			if level != 1 {
				t.Fatalf("the level is %d with members that know %v", level, members)
			}
			found := 0
			for _, m := range members {
				if m == 2 {
					found++
				}
			}
			if len(members) == 3 && found == twos {
				seen++
			}
			return seen > 150 // looks, 10 ms apart
		})
	}
	mixed(1)
	upgrade(g.nodes[1], 2)
	mixed(2)
	upgrade(g.nodes[1], 1) // back, which is allowed until the level has risen
	mixed(1)
	upgrade(g.nodes[1], 2)
	upgrade(g.nodes[0], 2)
	eventually(t, "level 2 on all nodes", func() bool {
		for _, n := range g.nodes {
			if level, _ := n.levels(); level != 2 || n.log.count("feature level raised") > 1 {
				return false
			}
		}
		return true
	})
	g.nodes[0].write("of level 2")
	g.converge()

	if err := g.nodes[0].stop(); err != nil {
		t.Fatal(err)
	}
	g.nodes[0].known = 1
	err := g.nodes[0].tryStart()
	if exitCode(err) != 78 || !strings.Contains(err.Error(), "upgrade this node") || !strings.Contains(err.Error(), "feature level 2") {
		t.Errorf("an older build on data of level 2: %v (%d), want it refused with 78", err, exitCode(err))
	}
	g.nodes[0].known = 2
	g.nodes[0].start()
	g.leader()

	late := g.add(0)
	late.cfg.Join = []string{g.nodes[0].cfg.Addrs.Gossip}
	late.start()
	if err := late.end(); exitCode(err) != 78 || !strings.Contains(err.Error(), "upgrade this node") {
		t.Errorf("an older newcomer: %v (%d), want it refused with 78", err, exitCode(err))
	}
}
