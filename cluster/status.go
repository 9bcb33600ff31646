package cluster

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/peer"
	"github.com/muster-registry/muster/wire"
)

// nodeStatus is what a node says of itself when asked over its peer port.
type nodeStatus struct {
	id, clusterID, gossip string
	leader                notLeader // whom it takes for the leader
	boot, term, applied   uint64
	expect                uint64
	lag                   time.Duration // the age of its state; negative: not known
	hasState              bool
	low                   bool   // its disk is nearly full: it is not to lead
	level                 uint64 // the highest feature level it knows
}

func (s *nodeStatus) encode() []byte {
	var m message
	m.string(1, s.id)
	m.string(2, s.clusterID)
	m.string(3, s.gossip)
	m.uint(4, s.boot)
	m.uint(5, s.term)
	m.uint(6, s.applied)
	m.uint(7, s.expect)
	m.uint(8, lagOut(s.lag))
	m.bool(9, s.hasState)
	m.string(10, s.leader.id)
	m.string(11, s.leader.addr)
	m.bool(12, s.low)
	m.uint(13, s.level)
	return m
}

// A lag travels as its microseconds plus one, so that "not known" is zero.
func lagOut(d time.Duration) uint64 {
	if d < 0 {
		return 0
	}
	return uint64(d.Microseconds()) + 1
}

func lagIn(v uint64) time.Duration {
	if v == 0 {
		return -1
	}
	return time.Duration(min(v-1, uint64(1<<42))) * time.Microsecond
}

func decodeStatus(b []byte) (nodeStatus, error) {
	s := nodeStatus{lag: -1}
	err := wire.Each(b, func(f wire.Number, v uint64, b []byte) error {
		switch f {
		case 1:
			s.id = string(b)
		case 2:
			s.clusterID = string(b)
		case 3:
			s.gossip = string(b)
		case 4:
			s.boot = v
		case 5:
			s.term = v
		case 6:
			s.applied = v
		case 7:
			s.expect = v
		case 8:
			s.lag = lagIn(v)
		case 9:
			s.hasState = v != 0
		case 10:
			s.leader.id = string(b)
		case 11:
			s.leader.addr = string(b)
		case 12:
			s.low = v != 0
		case 13:
			s.level = v
		}
		return nil
	})
	if err == nil && s.id == "" {
		err = errIncomplete
	}
	return s, err
}

func (n *Node) handleStatus(context.Context, peer.Hello, []byte) ([]byte, error) {
	s := n.ownStatus()
	return s.encode(), nil
}

func (n *Node) ownStatus() nodeStatus {
	s := nodeStatus{
		id: n.id, clusterID: n.ClusterID(), gossip: n.gossip.net.self(), boot: n.dir.boot, term: n.CurrentTerm(),
		applied: n.fsm.Applied(), expect: uint64(n.cfg.BootstrapExpect), lag: -1, hasState: n.hasState(), low: n.space.low.Load(),
		level: n.fsm.KnownLevel(),
	}
	if stale, ready := n.Freshness(); ready {
		s.lag = stale
	}
	s.leader.id, s.leader.addr = n.raftLeader()
	return s
}

// hasState reports whether raft knows anything: then this node founds no cluster.
func (n *Node) hasState() bool {
	r := n.raft.Load()
	return n.hadState || (r != nil && (r.LastIndex() > 0 || r.CurrentTerm() > 0))
}

func (n *Node) askStatus(ctx context.Context, to string) (nodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, n.timing.callTimeout)
	defer cancel()
	body, err := n.rpc(ctx, to, methodStatus, nil)
	if err != nil {
		return nodeStatus{}, err
	}
	return decodeStatus(body)
}

// memberState is what the leader knows of a member and tells everybody.
type memberState struct {
	id      string
	applied uint64
	lag     time.Duration // negative: not known
}

func (s *memberState) encode() []byte {
	var m message
	m.string(1, s.id)
	m.uint(2, s.applied)
	m.uint(3, lagOut(s.lag))
	return m
}

func decodeMemberState(b []byte) (memberState, error) {
	s := memberState{lag: -1}
	err := wire.Each(b, func(f wire.Number, v uint64, b []byte) error {
		switch f {
		case 1:
			s.id = string(b)
		case 2:
			s.applied = v
		case 3:
			s.lag = lagIn(v)
		}
		return nil
	})
	return s, err
}

// book is what the leader last said of the members, with the time it was said.
type book struct {
	mu          sync.Mutex
	at          time.Time
	members     map[string]memberState
	leader, api string
	behind      bool
}

// learn takes in the answer of a leader.
func (b *book) learn(a *freshAnswer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leader, b.api, b.behind = a.leader, a.api, a.behind
	b.set(a.members)
}

// saysBehind reports whether the leader said of late that it takes no registrations.
func (b *book) saysBehind() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.behind && time.Since(b.at) < leaderWordFor
}

// record takes in what this node, leading, has found out itself.
func (b *book) record(members []memberState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.behind = false
	b.set(members)
}

func (b *book) set(members []memberState) {
	b.at = time.Now()
	b.members = make(map[string]memberState, len(members))
	for _, m := range members {
		b.members[m.id] = m
	}
}

// states are the entries as of now: older by the time since they were made.
func (b *book) states() []memberState {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]memberState, 0, len(b.members))
	for _, m := range b.members {
		if m.lag >= 0 {
			m.lag += time.Since(b.at)
		}
		out = append(out, m)
	}
	return out
}

func (b *book) apiOf(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leader == id {
		return b.api
	}
	return ""
}

// Addresses are those at which the nodes of the cluster are reached, as far as
// this node knows: of the API, the peer port and the gossip of each, this node
// included.
func (n *Node) Addresses() []string {
	all := []string{n.apiAddr, n.port.Advertised(), n.gossip.net.self()}
	for _, s := range n.servers() {
		all = append(all, string(s.Address))
	}
	for _, g := range n.gossip.members() {
		all = append(all, g.APIAddr, g.PeerAddr, g.Addr)
	}
	return all
}

// Started reports whether the node has read its log and takes part in the cluster,
// or tries to.
func (n *Node) Started() bool { return n.gossip.started.Load() }

// Status is the cluster as this node sees it: the members from raft's
// configuration, whether they live from gossip, how far they are from the leader.
func (n *Node) Status() muster.Cluster {
	c := muster.Cluster{ClusterID: n.ClusterID(), Term: n.CurrentTerm(), Insecure: n.cfg.Insecure, FeatureLevel: n.fsm.FeatureLevel(), Members: []muster.Member{}}
	c.Leader, _ = n.raftLeader()
	if r := n.raft.Load(); r != nil {
		c.CommitIndex = r.CommitIndex()
	}
	states := make(map[string]memberState)
	for _, s := range n.book.states() {
		states[s.id] = s
	}
	gossip := n.gossip.members()
	own := n.ownStatus()
	states[n.id] = memberState{id: n.id, applied: own.applied, lag: own.lag}
	for _, s := range n.servers() {
		id := string(s.ID)
		m := muster.Member{ID: id, Name: id, State: muster.MemberFollower, PeerAddr: string(s.Address), LagMS: -1}
		switch {
		case id == c.Leader:
			m.State = muster.MemberLeader
		case s.Suffrage != raft.Voter:
			m.State = muster.MemberLearner
		}
		if g, ok := gossip[id]; ok {
			m.Name, m.Alive, m.APIAddr, m.Zone, m.Version = g.Name, g.Alive, g.APIAddr, g.Zone, g.Version
			m.FeatureLevel = g.Level
		}
		if id == n.id {
			m.Name, m.Alive, m.APIAddr, m.Zone, m.Version = n.cfg.Name, true, n.apiAddr, n.cfg.Zone, n.cfg.Version
			m.FeatureLevel = own.level
		}
		if st, ok := states[id]; ok {
			m.AppliedIndex = st.applied
			if st.lag >= 0 {
				m.LagMS = st.lag.Milliseconds()
			}
		}
		c.Members = append(c.Members, m)
	}
	slices.SortFunc(c.Members, func(a, b muster.Member) int {
		if byName := strings.Compare(a.Name, b.Name); byName != 0 {
			return byName
		}
		return strings.Compare(a.ID, b.ID)
	})
	return c
}
