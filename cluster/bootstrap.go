package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/cluster/peer"
)

const (
	bootstrapEvery = 200 * time.Millisecond
	// bootstrapStable is how long the founders must have been the same.
	bootstrapStable = 2 * time.Second
	bootstrapWarn   = 15 * time.Second
)

// founder is a node that could found the cluster.
type founder struct {
	id, addr string
	expect   int
	hasState bool
	wanted   bool
}

// decideFounding says whether self, who expects a number of founders, is to found the
// cluster with exactly those it sees. wait says why not; "" where the reason is
// that another node does it, or that there is a cluster already. alarm marks
// reasons that waiting alone does not mend.
func decideFounding(self string, expect int, seen []founder) (found bool, wait string, alarm bool) {
	var founders []founder
	for _, f := range seen {
		switch {
		case f.hasState:
			return false, "", false // a cluster exists, which will take this node in
		case f.wanted:
			founders = append(founders, f)
		}
	}
	for _, f := range founders {
		if f.expect != expect && f.expect != 0 {
			return false, fmt.Sprintf("node %s expects %d founders and this node %d: give all the same --bootstrap-expect", f.id, f.expect, expect), true
		}
	}
	founders = slices.DeleteFunc(founders, func(f founder) bool { return f.expect == 0 })
	switch {
	case len(founders) < expect:
		return false, fmt.Sprintf("%d of %d founders are here", len(founders), expect), false
	case len(founders) > expect:
		return false, fmt.Sprintf("%d nodes want to found a cluster of %d: start the others without --bootstrap-expect", len(founders), expect), true
	}
	lowest := slices.MinFunc(founders, func(a, b founder) int { return strings.Compare(a.id, b.id) })
	return lowest.id == self, "", false
}

// bootstrap founds the cluster if it falls to this node, and ends once there is one.
func (n *Node) bootstrap(ctx context.Context) {
	expect := n.cfg.BootstrapExpect
	if expect == 0 || n.hadState {
		return
	}
	if expect%2 == 0 {
		n.logger.Warn("an even number of voters tolerates no more failures than one fewer", "bootstrap_expect", expect)
	}
	var stableSince, warned time.Time
	var last []founder
	for ; !n.hasState(); sleep(ctx, bootstrapEvery) {
		if ctx.Err() != nil {
			return
		}
		seen := n.founders()
		if !slices.Equal(seen, last) {
			last, stableSince = seen, time.Now()
		}
		found, wait, alarm := decideFounding(n.id, expect, seen)
		if wait != "" && time.Since(warned) >= bootstrapWarn {
			warned = time.Now()
			if alarm {
				n.logger.Warn("not founding a cluster", "reason", wait)
			} else {
				n.logger.Info("waiting to found a cluster", "reason", wait)
			}
		}
		if !found || (time.Since(stableSince) < n.timing.foundAfter && !n.foundsAlone()) {
			continue
		}
		if err := n.confirmFounders(ctx, seen); err != nil {
			n.logger.Info("waiting to found a cluster", "reason", err)
			continue
		}
		n.found(ctx, seen)
	}
}

// foundsAlone: a node that expects only itself and was told of nobody else has
// nobody to wait for.
func (n *Node) foundsAlone() bool {
	own := n.aliveAddrs()
	return n.cfg.BootstrapExpect == 1 && !slices.ContainsFunc(n.cfg.Join, func(addr string) bool { return !own[addr] })
}

// founders are this node and those that gossip finds alive, in the order of their ids.
func (n *Node) founders() []founder {
	out := []founder{{id: n.id, addr: n.port.Advertised(), expect: n.cfg.BootstrapExpect, wanted: true}}
	for id, m := range n.gossip.members() {
		if id != n.id && m.Alive {
			out = append(out, founder{id, m.PeerAddr, int(min(m.Expect, 1<<20)), m.HasState || m.ClusterID != "", m.VoterWanted})
		}
	}
	slices.SortFunc(out, func(a, b founder) int { return strings.Compare(a.id, b.id) })
	return out
}

// confirmFounders asks each founder itself: gossip may be old.
func (n *Node) confirmFounders(ctx context.Context, founders []founder) error {
	for _, f := range founders {
		if f.id == n.id || f.expect == 0 {
			continue
		}
		st, err := n.askStatus(ctx, peer.At(f.id, f.addr))
		switch {
		case err != nil:
			return fmt.Errorf("asking node %s: %w", f.id, err)
		case st.hasState || st.clusterID != "" || int(st.expect) != f.expect:
			return fmt.Errorf("node %s is no longer a founder", f.id)
		}
	}
	return nil
}

func (n *Node) found(ctx context.Context, founders []founder) {
	var c raft.Configuration
	for _, f := range founders {
		if f.expect != 0 && f.wanted {
			c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(f.id), Address: raft.ServerAddress(f.addr)})
		}
	}
	err := n.waitFuture(ctx, n.raft.Load().BootstrapCluster(c))
	switch {
	case err == nil:
		n.logger.Info("founded a cluster", "node", n.id, "voters", len(c.Servers))
	case !errors.Is(err, raft.ErrCantBootstrap):
		n.logger.Warn("the cluster could not be founded", "err", err)
	}
}
