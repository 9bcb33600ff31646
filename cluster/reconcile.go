package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/cluster/peer"
)

const (
	reconcileEvery  = time.Second
	liveFor         = 3 * reconcileEvery // after its last answer
	changeEnqueue   = time.Second
	changeTimeout   = 5 * time.Second
	memberOpTimeout = 2 * time.Second
	mostExpected    = 9 // what gossip may say of --bootstrap-expect
)

// contact is what the leader has heard from a member in this session.
type contact struct {
	okSince, lastOK time.Time
	status          nodeStatus
	usurper         string
	movedTo         string
}

// reconciler compares the members with the nodes there are, for one session.
type reconciler struct {
	n        *Node
	term     uint64
	began    time.Time
	contacts map[string]*contact
}

// reconcileMembers runs in each session: every second, and when something changes,
// it asks all nodes how they are and makes at most one change.
func (n *Node) reconcileMembers(ctx context.Context, term uint64) {
	r := &reconciler{n: n, term: term, began: time.Now(), contacts: make(map[string]*contact)}
	ticker := time.NewTicker(reconcileEvery)
	defer ticker.Stop()
	for {
		newcomers := r.look(ctx)
		if ctx.Err() != nil {
			return
		}
		r.recordBoots(ctx)
		v := r.view(newcomers)
		if c := v.next(); c.kind != changeNone {
			if err := n.carryOut(ctx, term, c); err != nil {
				n.logger.Warn("membership not changed", "kind", string(c.kind), "member", c.id, "err", err)
			}
		} else { // so that nobody was added whose level was not asked
			r.raiseLevel(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-n.reconcile:
		}
	}
}

// statusAnswer is what one address answered when it was asked for one node.
type statusAnswer struct {
	id, addr string
	status   nodeStatus
	err      error
}

// look asks every member and every newcomer for its status, all at once.
func (r *reconciler) look(ctx context.Context) []newcomer {
	n := r.n
	gossip := n.gossip.members()
	inConfig := make(map[string]string) // id to address
	for _, s := range n.servers() {
		inConfig[string(s.ID)] = string(s.Address)
	}
	ask := make(map[[2]string]bool) // id and address
	for id, addr := range inConfig {
		ask[[2]string{id, addr}] = id != n.id
	}
	for id, g := range gossip {
		if g.Alive && id != n.id {
			ask[[2]string{id, g.PeerAddr}] = true
		}
	}
	heard := make(map[string]bool)
	var newcomers []newcomer
	var members []statusAnswer
	for _, a := range n.askAll(ctx, ask) {
		if _, member := inConfig[a.id]; member {
			members = append(members, a)
		} else if g := gossip[a.id]; a.err == nil && a.status.id == a.id && max(a.status.level, 1) >= n.fsm.FeatureLevel() {
			c := newcomer{
				id: a.id, addr: a.addr, wanted: g.VoterWanted, leaving: g.Leaving, removed: n.fsm.MemberRemoved(a.id),
				foreign: a.status.clusterID != n.ClusterID() && (a.status.clusterID != "" || a.status.hasState),
			}
			if c.foreign {
				// With state and no id it is of a cluster that never came to be: its log may
				// begin like ours and go on otherwise, which raft would not notice.
				n.noteForeign(a.id, a.status.clusterID, a.addr)
			}
			newcomers = append(newcomers, c)
		}
	}
	for _, configured := range []bool{false, true} { // the configured address has the last word
		for _, a := range members {
			if configured == (a.addr == inConfig[a.id]) {
				heard[a.id] = r.hear(a, configured) || heard[a.id]
			}
		}
	}
	for id, c := range r.contacts {
		if !heard[id] {
			c.okSince = time.Time{}
		}
	}
	return newcomers
}

// askAll asks at each of the addresses, whoever is there: a usurper is to show.
func (n *Node) askAll(ctx context.Context, ask map[[2]string]bool) []statusAnswer {
	ctx, cancel := context.WithTimeout(ctx, reconcileEvery)
	defer cancel()
	answers := make(chan statusAnswer, len(ask))
	var wg sync.WaitGroup
	for who, wanted := range ask {
		if !wanted {
			continue
		}
		wg.Go(func() {
			st, err := n.askStatus(ctx, who[1])
			answers <- statusAnswer{who[0], who[1], st, err}
		})
	}
	wg.Wait()
	close(answers)
	var out []statusAnswer
	for a := range answers {
		out = append(out, a)
	}
	return out
}

// hear takes in one answer of a member, or of whoever answered in its place; true:
// it was the member itself.
func (r *reconciler) hear(a statusAnswer, configured bool) bool {
	c := r.contacts[a.id]
	if c == nil {
		c = &contact{}
		r.contacts[a.id] = c
	}
	st := a.status
	switch {
	case a.err != nil:
		if configured {
			c.usurper = ""
		}
		return false
	case st.id != a.id:
		if configured {
			c.usurper = st.id
		}
		return false
	}
	now := time.Now()
	if c.okSince.IsZero() || st.boot != c.status.boot {
		c.okSince = now
	}
	c.lastOK, c.status = now, st
	if configured {
		c.usurper, c.movedTo = "", ""
	} else {
		c.movedTo = a.addr
	}
	return true
}

// view is the picture that the next change is chosen from.
func (r *reconciler) view(newcomers []newcomer) *clusterView {
	n := r.n
	now := time.Now()
	commit := n.raft.Load().CommitIndex()
	gossip := n.gossip.members()
	v := &clusterView{self: n.id, expect: n.cfg.BootstrapExpect, stabilise: n.timing.stabilise, newcomers: newcomers}
	var states []memberState
	for _, s := range n.servers() {
		id := string(s.ID)
		g := gossip[id]
		v.expect = max(v.expect, int(min(g.Expect, mostExpected)))
		m := memberView{id: id, addr: string(s.Address), voter: s.Suffrage == raft.Voter, removed: n.fsm.MemberRemoved(id), leaving: g.Leaving, wanted: g.VoterWanted}
		c := r.contacts[id]
		switch {
		case id == n.id:
			m.live, m.wanted, m.leaving = true, true, n.leaving.Load()
			if own := n.port.Advertised(); own != m.addr {
				m.movedTo = own
			}
		case c == nil:
			m.deadFor = deadFor(now, r.began, time.Time{}, g)
		default:
			m.live = now.Sub(c.lastOK) < liveFor
			m.sameTerm, m.lag = c.status.term == r.term, commit-min(commit, c.status.applied)
			m.movedTo, m.usurper = c.movedTo, c.usurper
			if !c.okSince.IsZero() {
				m.okFor = now.Sub(c.okSince)
			}
			if !m.live {
				m.deadFor = deadFor(now, r.began, c.lastOK, g)
			} else {
				states = append(states, memberState{id: id, applied: c.status.applied, lag: c.status.lag})
			}
		}
		v.members = append(v.members, m)
	}
	n.book.record(append(states, memberState{id: n.id, applied: n.fsm.Applied(), lag: 0}))
	return v
}

// deadFor is how long a member has been gone for everybody: the leader's questions
// count from the session's start, gossip from when it noticed.
func deadFor(now, began, lastOK time.Time, g gossiped) time.Duration {
	since := began
	if lastOK.After(since) {
		since = lastOK
	}
	if g.Alive {
		return 0
	}
	if g.Since.After(since) {
		since = g.Since
	}
	return now.Sub(since)
}

// recordBoots has the boot counters of all members remembered by the state, so
// that an old copy of a data directory is known by every node for ever after.
func (r *reconciler) recordBoots(ctx context.Context) {
	n := r.n
	var ops [][]byte
	for _, s := range n.servers() {
		id := string(s.ID)
		boot := n.seen.boot(id)
		if id == n.id {
			boot = n.dir.boot
		}
		if boot > n.fsm.MemberBoot(id) {
			ops = append(ops, n.fsm.MemberOp(id, boot, false))
		}
	}
	if err := n.decide(ctx, r.term, ops); err != nil {
		n.logger.Debug("boot counters not recorded", "err", err)
	}
}

// decide proposes the session's own operations.
func (n *Node) decide(ctx context.Context, term uint64, ops [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, memberOpTimeout)
	defer cancel()
	for _, o := range n.ProposeAs(ctx, term, ops) {
		if o.Err != nil {
			return o.Err
		}
	}
	return nil
}

// carryOut makes one change. A removal is recorded first: were leadership lost in
// between, the next leader finishes it, and a node that is out of the configuration
// but not recorded would be taken for a newcomer.
func (n *Node) carryOut(ctx context.Context, term uint64, c change) error {
	n.logger.Info("changing the membership", "kind", string(c.kind), "member", c.id, "addr", c.addr, "reason", c.reason)
	n.metrics.changes.Inc()
	r := n.raft.Load()
	id, addr := raft.ServerID(c.id), raft.ServerAddress(c.addr)
	var future raft.Future
	switch c.kind {
	case changeHandOff:
		return n.handOver(ctx, "")
	case changeRemove:
		if !n.fsm.MemberRemoved(c.id) {
			if err := n.decide(ctx, term, [][]byte{n.fsm.MemberOp(c.id, n.fsm.MemberBoot(c.id), true)}); err != nil {
				return fmt.Errorf("recording the removal: %w", err)
			}
		}
		future = r.RemoveServer(id, 0, changeEnqueue)
	case changeAdd, changeMove, changePromote:
		if c.voter {
			future = r.AddVoter(id, addr, 0, changeEnqueue)
		} else {
			future = r.AddNonvoter(id, addr, 0, changeEnqueue)
		}
	default:
		return errors.New("unknown change")
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := n.waitFuture(ctx, future); err != nil {
		return err
	}
	if c.kind == changeRemove {
		// It dials again, and is then told why it is not welcome.
		n.port.CloseConns(func(remote peer.Hello, _ peer.Kind) bool { return remote.NodeID == c.id })
	}
	return nil
}
