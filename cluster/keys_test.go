package cluster_test

import (
	"bytes"
	"testing"

	"github.com/muster-registry/muster/cluster/peer"
)

func secret(fill byte) []byte { return bytes.Repeat([]byte{fill}, peer.KeySize) }

// TestClusterKey: three nodes with a key form a cluster, one without and one with
// another stay out and are told why, and the key is changed one node after the
// other while the cluster works.
func TestClusterKey(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, func(n *node) { n.cfg.Keys = [][]byte{secret('a')} }).start()
	g.leader()
	g.nodes[0].write("with the first key")
	g.converge()

	for name, keys := range map[string][][]byte{"none": nil, "another": {secret('x')}} {
		out := g.add(0, func(n *node) { n.cfg.Keys, n.cfg.Join = keys, []string{g.nodes[0].cfg.Addrs.Gossip} })
		g.nodes = g.nodes[:3]
		out.start()
		eventually(t, "a node with the key "+name+" to be told why it stays out", func() bool {
			return out.log.count("--cluster-key-file") > 0
		})
		eventually(t, "the cluster to say that somebody lacks the key", func() bool {
			return g.nodes[0].log.count("--cluster-key-file") > 0
		})
		out.stop()
	}

	for _, keys := range [][][]byte{{secret('a'), secret('b')}, {secret('b'), secret('a')}, {secret('b')}} {
		for _, n := range g.nodes {
			n.stop()
			n.cfg.Keys = keys
			n.start()
			g.leader()
			n.write("on " + n.cfg.Name)
		}
	}
	g.converge()
	if got := len(g.leader().Voters()); got != 3 {
		t.Errorf("%d voters are left", got)
	}
}
