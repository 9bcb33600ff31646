package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/muster-registry/muster/cluster/peer"
)

// seenPeers remembers which incarnations of which nodes have said hello.
type seenPeers struct {
	mu      sync.Mutex
	nodes   map[string]incarnation // guarded by mu
	foreign map[string]time.Time   // guarded by mu: when a strange cluster was last complained of
}

// incarnation is one start of a node. Two with the same boot and different nonces
// are two copies of one data directory.
type incarnation struct{ boot, nonce uint64 }

const foreignEvery = 10 * time.Minute

func (n *Node) hello() peer.Hello {
	return peer.Hello{
		Cluster: n.cfg.ClusterName, ClusterID: n.ClusterID(), NodeID: n.id, Boot: n.dir.boot, Nonce: n.nonce,
		Version: n.cfg.Version, Addr: n.port.Advertised(), Level: n.fsm.KnownLevel(), ClusterLevel: n.level(),
	}
}

// admit is asked at both ends of every new connection between nodes. Whether it is
// of our cluster comes first: what a stranger says of his members is nothing to us.
func (n *Node) admit(remote peer.Hello, _ peer.Kind) error {
	refuse := func(code, format string, args ...any) error {
		return &peer.RefusedError{Code: code, Reason: fmt.Sprintf(format, args...)}
	}
	if remote.Cluster != n.cfg.ClusterName {
		return refuse(peer.CodeWrongCluster, "the cluster is called %q here and %q there", n.cfg.ClusterName, remote.Cluster)
	}
	if own := n.ClusterID(); own != "" && remote.ClusterID != "" && own != remote.ClusterID {
		n.noteForeign(remote.NodeID, remote.ClusterID, remote.Addr)
		return refuse(peer.CodeWrongCluster, "the cluster is %s here and %s there", own, remote.ClusterID)
	}
	if n.fsm.MemberRemoved(remote.NodeID) {
		return refuse(peer.CodeRemoved, "node %s was removed from the cluster", remote.NodeID)
	}
	if known := n.fsm.KnownLevel(); remote.ClusterLevel > known && remote.ClusterID != "" {
		// Whoever is of the cluster that this node is of, or is to be of, says that it is
		// too old: nobody else may tell it.
		reason := fmt.Sprintf("the cluster is at feature level %d, and node %s (%s) knows none above %d", remote.ClusterLevel, n.id, n.cfg.Version, known)
		n.fail(exitErrorf(exitConfig, "upgrade this node: %s", reason))
		return refuse(peer.CodeTooOld, "%s", reason)
	}
	if level := n.level(); max(remote.Level, 1) < level {
		return refuse(peer.CodeTooOld, "the cluster is at feature level %d, and node %s (%s) knows none above %d", level, remote.NodeID, remote.Version, remote.Level)
	}
	if remote.NodeID == n.id && remote.Nonce != n.nonce {
		return refuse(peer.CodeDuplicateID, "two nodes run with the id %s", n.id)
	}
	if boot := n.fsm.MemberBoot(remote.NodeID); remote.Boot < boot {
		return refuse(peer.CodeOldCopy, "node %s was started %d times before and counts %d", remote.NodeID, boot, remote.Boot)
	}
	if at, elsewhere := n.runsElsewhere(remote); elsewhere {
		return refuse(peer.CodeRefused, "node %s still runs at %s: if that is another machine, wipe the copy of its data directory", remote.NodeID, at)
	}
	return n.seen.note(remote)
}

// runsElsewhere reports whether a node that was started later than the one known
// comes from another address while the one known lives. Where a node has moved,
// gossip finds soon that the old one is dead; where its directory was copied, the
// copy stays out.
func (n *Node) runsElsewhere(remote peer.Hello) (at string, elsewhere bool) {
	if known := n.seen.boot(remote.NodeID); known == 0 || remote.Boot <= known {
		return "", false
	}
	n.gossip.mu.Lock()
	defer n.gossip.mu.Unlock()
	m := n.gossip.nodes[remote.NodeID]
	if m == nil || !m.Alive || m.PeerAddr == remote.Addr {
		return "", false
	}
	return m.PeerAddr, true
}

func (s *seenPeers) note(remote peer.Hello) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes == nil {
		s.nodes = make(map[string]incarnation)
	}
	known, ok := s.nodes[remote.NodeID]
	switch {
	case !ok || remote.Boot > known.boot:
		s.nodes[remote.NodeID] = incarnation{remote.Boot, remote.Nonce}
	case remote.Boot < known.boot:
		return &peer.RefusedError{Code: peer.CodeOldCopy,
			Reason: fmt.Sprintf("node %s was started %d times before and counts %d", remote.NodeID, known.boot, remote.Boot)}
	case remote.Nonce != known.nonce:
		return &peer.RefusedError{Code: peer.CodeDuplicateID, Reason: fmt.Sprintf("two nodes run with the id %s", remote.NodeID)}
	}
	return nil
}

// boot is the boot counter that a node last said; 0: it has not been here.
func (s *seenPeers) boot(id string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[id].boot
}

// noteForeign complains about a node of another cluster, once in a while for each.
func (n *Node) noteForeign(node, clusterID, addr string) {
	s := &n.seen
	s.mu.Lock()
	if s.foreign == nil {
		s.foreign = make(map[string]time.Time)
	}
	told := time.Since(s.foreign[clusterID]) < foreignEvery
	if !told {
		s.foreign[clusterID] = time.Now()
	}
	s.mu.Unlock()
	if !told {
		n.logger.Error("a node of another cluster has found its way here and is kept out: check --join and --cluster-name on both sides",
			"cluster", n.ClusterID(), "other_cluster", clusterID, "node", node, "addr", addr)
	}
}

// rpc makes one internal call. to is an address, or peer.At(id, address). A
// refusal that means this node itself ends it.
func (n *Node) rpc(ctx context.Context, to, method string, body []byte) ([]byte, error) {
	answer, err := n.port.Call(ctx, to, method, body)
	if refused, ok := errors.AsType[*peer.RefusedError](err); ok && refused.ByPeer {
		n.refused(refused)
	}
	return answer, err
}

func (n *Node) refused(r *peer.RefusedError) {
	switch r.Code {
	case peer.CodeRemoved:
		n.endRemoved()
	case peer.CodeTooOld:
		n.fail(exitErrorf(exitConfig, "upgrade this node: %s", r.Reason))
	case peer.CodeOldCopy:
		n.fail(exitErrorf(exitConfig, "the data directory %s is an old copy (%s): wipe it and let the node join anew", n.dir.path, r.Reason))
	case peer.CodeDuplicateID:
		// A node that the cluster knows is not ended by its double.
		if _, ready := n.Freshness(); !ready {
			n.fail(exitErrorf(exitConfig, "the data directory %s is a copy of that of a running node (%s): wipe it and let the node join anew", n.dir.path, r.Reason))
		}
	}
}

func (n *Node) removedError() error {
	return exitErrorf(exitConfig, "node %s was removed from the cluster: wipe the data directory %s to join anew", n.id, n.dir.path)
}
