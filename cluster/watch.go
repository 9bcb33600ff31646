package cluster

import (
	"bytes"
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/cluster/peer"
)

const (
	selfEvery   = 250 * time.Millisecond
	lookAround  = time.Second
	observerBuf = 64
)

// meta is what this node says of itself by gossip now.
func (n *Node) meta() meta {
	return meta{
		ClusterID: n.ClusterID(), PeerAddr: n.port.Advertised(), APIAddr: n.apiAddr, Name: n.cfg.Name, Zone: n.cfg.Zone,
		Version: n.cfg.Version, Boot: n.dir.boot, Expect: uint64(n.cfg.BootstrapExpect), Level: n.fsm.KnownLevel(),
		VoterWanted: true, HasState: n.hasState(), Leaving: n.leaving.Load(),
	}
}

// watchSelf keeps what the node says of itself true, and notices that the cluster
// has removed it.
func (n *Node) watchSelf(ctx context.Context) {
	ticker := time.NewTicker(selfEvery)
	defer ticker.Stop()
	var announced []byte
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if n.fsm.MemberRemoved(n.id) {
			n.endRemoved()
			return
		}
		n.keepClusterID()
		n.keepLevel()
		n.Startup() // says once that the node has caught up
		m := n.meta()
		if b := m.encode(metaLimit); !bytes.Equal(b, announced) {
			announced = b
			n.gossip.announce()
		}
		if _, ok := n.leaderRoute(); !ok && n.session.Load() == nil && time.Since(asked) >= lookAround {
			asked = time.Now()
			n.askAround(ctx)
		}
	}
}

func (n *Node) endRemoved() {
	if n.leaving.Load() {
		n.fail(nil)
		return
	}
	n.fail(n.removedError())
}

// keepClusterID writes the cluster's id down when the state first says it.
func (n *Node) keepClusterID() {
	id := n.fsm.ClusterID()
	if id == "" || id == *n.cluster.Load() {
		return
	}
	if err := n.dir.setClusterID(id); err != nil {
		n.fail(exitErrorf(exitIO, "writing to the data directory: %w", err))
		return
	}
	n.cluster.Store(&id)
	n.logger.Info("part of a cluster", "node", n.id, "cluster", id)
}

// askAround asks the members how they are when no leader is to be found: one may
// know the leader, and where this node is not wanted any more they say so.
func (n *Node) askAround(ctx context.Context) {
	for _, s := range n.servers() {
		if string(s.ID) == n.id {
			continue
		}
		st, err := n.askStatus(ctx, peer.At(string(s.ID), string(s.Address)))
		if err != nil || st.leader.addr == "" || st.leader.id == n.id {
			continue
		}
		n.routes.redirect(route{id: st.id, addr: string(s.Address)}, st.leader)
		poke(n.queue.wake)
		return
	}
}

// watchLeader follows whom raft takes for the leader.
func (n *Node) watchLeader(ctx context.Context, r *raft.Raft) {
	observed := make(chan raft.Observation, observerBuf)
	// Not blocking: an observation that is lost is made up for by the next, because
	// only the newest state counts.
	observer := raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.RegisterObserver(observer)
	defer r.DeregisterObserver(observer)
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-observed:
		}
		id, _ := n.raftLeader()
		if id != "" {
			n.routes.forget()
			n.pausedUntil.Store(0)
			if id != last {
				last = id
				n.metrics.leaderChanges.Inc()
				n.logger.Info("following a leader", "node", n.id, "leader", id, "term", n.CurrentTerm())
			}
		}
		poke(n.queue.wake)
	}
}

// watchGossip passes on that gossip has news, and warns of nodes that people will
// confuse.
func (n *Node) watchGossip(ctx context.Context) {
	warned := make(map[string]bool)
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.gossip.dirty:
		}
		poke(n.reconcile)
		byName := map[string]string{n.cfg.Name: n.id}
		for id, m := range n.gossip.members() {
			if id == n.id || !m.Alive {
				continue
			}
			if other, ok := byName[m.Name]; ok && !warned[id] {
				warned[id] = true
				n.logger.Warn("two nodes show the same name", "name", m.Name, "node", id, "other", other)
			}
			byName[m.Name] = id
		}
	}
}
