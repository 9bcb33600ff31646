package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/peer"
	"github.com/muster-registry/muster/fault"
)

// remoteDepth is how many propose calls are on their way to one leader at once.
// What comes meanwhile gathers for the next: more calls would only be smaller ones.
const remoteDepth = 2

// sessionPoll is how often a node that was just elected looks whether it may answer.
const sessionPoll = 2 * time.Millisecond

// route is where operations of other nodes are sent.
type route struct{ id, addr string }

// routes finds the leader: raft's knowledge of it, or what the last node asked in
// vain said, whichever is not known to be wrong.
type routes struct {
	mu      sync.Mutex
	refused route         // guarded by mu: said that it is not the leader
	hint    route         // guarded by mu: who it said is; empty: did not know
	flying  map[route]int // guarded by mu: calls under way
}

// choose returns the leader to send to; false: nobody to send to.
func (r *routes) choose(known route) (route, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known == r.refused || known.addr == "" {
		known = r.hint
	}
	return known, known.addr != ""
}

// start counts a call to the leader; false: enough are on their way.
func (r *routes) start(to route) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flying == nil {
		r.flying = make(map[route]int)
	}
	if r.flying[to] >= remoteDepth {
		return false
	}
	r.flying[to]++
	return true
}

func (r *routes) finish(to route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flying[to]--; r.flying[to] == 0 {
		delete(r.flying, to)
	}
}

// redirect notes that a node is not the leader and whom it named. It returns true
// when there is somebody else to ask at once.
func (r *routes) redirect(from route, to notLeader) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := to.addr != "" && to.addr != from.addr && to.addr != r.refused.addr
	r.refused, r.hint = from, route(to)
	return fresh
}

// forget drops what other nodes said: raft has heard from a leader itself.
func (r *routes) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused, r.hint = route{}, route{}
}

// leaderRoute is where to reach the leader if it is another node.
func (n *Node) leaderRoute() (route, bool) {
	id, addr := n.raftLeader()
	if id == n.id {
		id, addr = "", ""
	}
	to, ok := n.routes.choose(route{id, addr})
	return to, ok && to.id != n.id
}

// shipRemote sends one batch to the leader; false: nothing to send, or nowhere.
func (n *Node) shipRemote(ctx context.Context) bool {
	if !n.retryDue() {
		return false
	}
	to, ok := n.leaderRoute()
	if !ok || !n.routes.start(to) {
		return false
	}
	parts := n.queue.take(func(c *call) bool { return !c.here })
	if len(parts) == 0 {
		n.routes.finish(to)
		return false
	}
	n.loops.Go(func() {
		defer n.routes.finish(to)
		n.queue.settle(parts, n.callPropose(ctx, to, parts))
	})
	return true
}

// callPropose sends the parts and returns one outcome per operation.
func (n *Node) callPropose(ctx context.Context, to route, parts []part) []outcome {
	now := time.Now()
	segments := make([]segment, len(parts))
	ops, last := 0, now
	for i, p := range parts {
		segments[i] = segment{remaining: p.call.deadline.Sub(now), ops: p.call.ops[p.from:p.to], vital: p.call.vital}
		ops += p.to - p.from
		if p.call.deadline.After(last) {
			last = p.call.deadline
		}
	}
	ctx, cancel := context.WithDeadline(ctx, last)
	defer cancel()
	n.metrics.forwards.Inc()
	n.metrics.forwardOps.Add(float64(ops))
	body, err := n.rpc(ctx, peer.At(to.id, to.addr), methodPropose, encodePropose(segments))
	all := func(o outcome) []outcome {
		outs := make([]outcome, ops)
		for i := range outs {
			outs[i] = o
		}
		return outs
	}
	switch {
	case err == nil:
	case errors.Is(err, peer.ErrNotSent), errors.Is(err, peer.ErrUnknownMethod):
		n.pause()
		return all(outcome{fate: fateNotApplied, detail: err.Error()})
	case fault.Is(fault.RetryUnknown):
		return all(outcome{fate: fateNotApplied})
	default:
		return all(outcome{detail: err.Error()})
	}
	outs, redirect, err := decodeOutcomes(body)
	switch {
	case redirect != nil:
		if !n.routes.redirect(to, *redirect) {
			n.pause()
		}
		return all(outcome{fate: fateNotApplied, detail: "the node that was asked is not the leader"})
	case err == nil && len(outs) != ops:
		err = fmt.Errorf("%d outcomes for %d operations", len(outs), ops)
	}
	if err != nil {
		return all(outcome{detail: err.Error()})
	}
	if retryFrom(outs) < len(outs) {
		n.pause()
	}
	return outs
}

// handlePropose serves the operations that another node passes on. They go no
// further: a node that does not lead says so.
func (n *Node) handlePropose(ctx context.Context, _ peer.Hello, body []byte) ([]byte, error) {
	now := time.Now() // the callers' deadlines count from here, the wait for a session included
	if n.awaitSession(ctx) == nil {
		return n.sayNotLeader(), nil
	}
	segments, err := decodePropose(body)
	if err != nil {
		return nil, muster.Errorf(muster.CodeInternal, "reading a propose call: %v", err)
	}
	calls := make([]*call, len(segments))
	for i, s := range segments {
		calls[i] = &call{ops: s.ops, here: true, vital: s.vital, deadline: now.Add(s.remaining)}
	}
	var outs []outcome
	for _, c := range n.addAll(calls) {
		outs = append(outs, n.await(ctx, c)...)
	}
	return encodeOutcomes(outs), nil
}

// awaitSession returns the session of this node; nil: it does not lead. One that was
// elected a moment ago is waited for: whoever asks knew that before this node could
// answer, and would only ask again.
func (n *Node) awaitSession(ctx context.Context) *session {
	s := n.session.Load()
	for end := time.Now().Add(n.timing.heartbeat); s == nil && time.Now().Before(end) && n.opening(); s = n.session.Load() {
		if !sleep(ctx, sessionPoll) {
			return nil
		}
	}
	return s
}

// opening reports whether this node leads, so that its session is to open. A node
// that still starts is asked before it has a raft.
func (n *Node) opening() bool {
	r := n.raft.Load()
	return r != nil && r.State() == raft.Leader && !n.holding.Load()
}

// addAll queues the calls before waiting for any of them.
func (n *Node) addAll(calls []*call) []*call {
	behind := n.behind()
	for _, c := range calls {
		why := fateOverloaded
		switch {
		case n.full():
			why = fateDiskFull
		case len(c.ops) == 0:
		case behind && !c.vital, !n.queue.add(c):
			n.metrics.refused(c)
		default:
			continue
		}
		c.out = refuseAll(c, why, "")
		c.done = make(chan struct{})
		close(c.done)
	}
	return calls
}

// await waits for a forwarded call until its caller on the other node gives up.
func (n *Node) await(ctx context.Context, c *call) []outcome {
	timer := time.NewTimer(time.Until(c.deadline))
	defer timer.Stop()
	done := false
	select {
	case <-c.done:
		done = true
	case <-ctx.Done():
	case <-timer.C:
	case <-n.ended:
	}
	outs := c.out
	if !done {
		outs = n.queue.leave(c)
	}
	for i, o := range outs {
		if o.fate == fateRefused { // the session closed: the node that asked may try another leader
			outs[i].fate = fateNotApplied
		}
	}
	return outs
}

// sayNotLeader is the answer of a node that was asked as the leader and is not.
func (n *Node) sayNotLeader() []byte {
	l := &notLeader{}
	if id, addr := n.raftLeader(); id != n.id {
		l.id, l.addr = id, addr
	}
	return l.encode()
}
