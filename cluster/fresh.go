package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/peer"
	"github.com/muster-registry/muster/fault"
	"github.com/muster-registry/muster/wire"
)

const (
	// freshEvery is how often a follower asks the leader how current it is.
	freshEvery = 200 * time.Millisecond
	// strictBelow is the age below which a reader is not served by what the leader
	// happens to know, but by a majority round of his own.
	strictBelow = freshEvery
	maxPending  = 64
)

// freshness is how current the state of this node is known to be. It is only ever
// learnt from an answer to a question: entries and heartbeats that arrive say
// nothing about when they were sent.
type freshness struct {
	mu      sync.Mutex
	asOf    time.Time      // guarded by mu: every write acknowledged before it is in the state here
	ready   bool           // guarded by mu
	pending []pendingFresh // guarded by mu: answers whose index is not applied yet, oldest first
}

type pendingFresh struct {
	index uint64
	asOf  time.Time
}

func (f *freshness) advance(asOf time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = true
	if asOf.After(f.asOf) {
		f.asOf = asOf
	}
}

// promise notes that the state will be current as of asOf once index is applied.
func (f *freshness) promise(index uint64, asOf time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pending) == maxPending {
		f.pending = append(f.pending[:maxPending/2], f.pending[maxPending/2+1:]...)
	}
	f.pending = append(f.pending, pendingFresh{index, asOf})
}

// keep takes in the promises that what was applied fulfils. It returns the index
// of the oldest one that is left, 0 if none is.
func (f *freshness) keep(applied uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := f.pending[:0]
	for _, p := range f.pending {
		switch {
		case p.index > applied:
			left = append(left, p)
		case p.asOf.After(f.asOf):
			f.asOf, f.ready = p.asOf, true
		default:
			f.ready = true
		}
	}
	f.pending = left
	if len(left) == 0 {
		return 0
	}
	return left[0].index
}

func (f *freshness) get() (asOf time.Time, ready bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asOf, f.ready
}

// Freshness is how old the state of this node may be: every write that was
// acknowledged longer ago is in it. ready is false until the state has once
// caught up with a leader since the node started; until then it is not to be shown.
func (n *Node) Freshness() (stale time.Duration, ready bool) {
	if s := n.session.Load(); s != nil {
		n.fresh.advance(s.lastMajority())
	}
	asOf, ready := n.fresh.get()
	if !ready && !fault.Is(fault.AnswerBeforeCaughtUp) {
		return 0, false
	}
	return max(0, time.Since(asOf)), true
}

// Refresh makes the state of this node no older than maxStale, or returns a
// too_stale error.
func (n *Node) Refresh(ctx context.Context, maxStale time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, n.timing.callTimeout)
	defer cancel()
	for {
		stale, ready := n.Freshness()
		if ready && stale <= maxStale {
			return nil
		}
		ask := n.freshAsks
		if maxStale < strictBelow {
			ask = n.strictAsks
		}
		if _, err := ask.do(ctx); err == nil && n.isFresher(maxStale) {
			return nil
		}
		if !sleep(ctx, min(retryEvery, max(time.Millisecond, maxStale))) {
			return muster.Errorf(muster.CodeTooStale, "this node is %s behind and cannot reach the leader", stale.Round(time.Millisecond)).
				WithHint("ask another node, or allow an older answer with max_stale").WithRetryAfter(jitter(time.Second))
		}
	}
}

func (n *Node) isFresher(maxStale time.Duration) bool {
	stale, ready := n.Freshness()
	return ready && stale <= maxStale
}

// keepFresh asks for as long as the node runs.
func (n *Node) keepFresh(ctx context.Context) {
	ticker := time.NewTicker(freshEvery)
	defer ticker.Stop()
	for {
		n.freshAsks.do(ctx) // a failure shows as age
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// askFresh asks the leader once, and waits a moment for what it named to be applied.
func (n *Node) askFresh(ctx context.Context, strict bool) (struct{}, error) {
	if s := n.session.Load(); s != nil {
		if strict {
			return struct{}{}, n.confirm(ctx, s)
		}
		return struct{}{}, nil
	}
	var question message
	question.bool(1, strict)
	cctx, cancel := context.WithTimeout(ctx, n.timing.callTimeout)
	defer cancel()
	sent := time.Now()
	body, err := n.callLeader(cctx, methodFresh, question)
	if err != nil {
		return struct{}{}, err
	}
	a, err := decodeFresh(body)
	if err != nil {
		return struct{}{}, err
	}
	n.book.learn(a)
	n.fresh.promise(a.index, sent.Add(-a.age))
	if next := n.fresh.keep(n.fsm.Applied()); next != 0 {
		ctx, cancel := context.WithTimeout(ctx, freshEvery)
		defer cancel()
		err = n.fsm.WaitApplied(ctx, next)
		n.fresh.keep(n.fsm.Applied())
	}
	return struct{}{}, err
}

// freshAnswer is what a leader with an open session says: when index is applied,
// the state is as current as the leader knew to be age ago. Beside it come the
// leader's API address, what it knows of the members, and whether it is behind.
type freshAnswer struct {
	term, index uint64
	age         time.Duration
	leader, api string
	members     []memberState
	behind      bool // the leader takes no registrations just now
}

func (a *freshAnswer) encode() []byte {
	var m message
	m.uint(1, a.term)
	m.uint(2, a.index)
	m.uint(3, uint64(a.age.Microseconds()))
	m.string(4, a.leader)
	m.string(5, a.api)
	for _, s := range a.members {
		m.bytes(6, s.encode())
	}
	m.bool(7, a.behind)
	return m
}

func decodeFresh(b []byte) (*freshAnswer, error) {
	a := &freshAnswer{}
	err := wire.Each(b, func(f wire.Number, v uint64, b []byte) error {
		switch f {
		case 1:
			a.term = v
		case 2:
			a.index = v
		case 3:
			a.age = time.Duration(min(v, uint64(1<<40))) * time.Microsecond
		case 4:
			a.leader = string(b)
		case 5:
			a.api = string(b)
		case 6:
			s, err := decodeMemberState(b)
			if err != nil {
				return err
			}
			a.members = append(a.members, s)
		case 7:
			a.behind = v != 0
		}
		return nil
	})
	if err == nil && (a.term == 0 || a.index == 0) {
		err = errIncomplete
	}
	return a, err
}

// handleFresh answers for the cluster, if this node may. The order matters: first
// when the latest majority round began, then the commit index, which holds all that
// was acknowledged until then, then the term, which shows whether a newer leader's
// entries could be in that index.
func (n *Node) handleFresh(ctx context.Context, _ peer.Hello, body []byte) ([]byte, error) {
	s := n.awaitSession(ctx)
	if s == nil {
		return n.sayNotLeader(), nil
	}
	strict := false
	err := wire.Each(body, func(f wire.Number, v uint64, _ []byte) error {
		strict = strict || f == 1 && v == 1
		return nil
	})
	if err != nil {
		return nil, muster.Errorf(muster.CodeInternal, "reading a fresh call: %v", err)
	}
	if strict {
		if err := n.confirm(ctx, s); err != nil {
			return nil, n.noLeader("the majority does not answer").WithCause(err)
		}
	}
	a := &freshAnswer{term: s.term, leader: n.id, api: n.apiAddr, members: n.book.states(), behind: n.behind()}
	majority := s.lastMajority()
	a.index = n.raft.Load().CommitIndex()
	if n.CurrentTerm() != s.term {
		return n.sayNotLeader(), nil
	}
	a.age = time.Since(majority)
	return a.encode(), nil
}
