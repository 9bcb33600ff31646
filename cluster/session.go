package cluster

import (
	"context"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// session is the time during which this node leads and knows it: from the moment
// its own first operation of the term was applied here, until leadership is lost.
// Only a session writes, confirms and answers for the whole cluster.
type session struct {
	term uint64
	// ctx ends with the session. It is kept here, against the rule, because a
	// session is a lifetime that others ask for.
	ctx context.Context

	confirms *rounds[time.Time]
	links    voterLinks

	mu       sync.Mutex
	majority time.Time // guarded by mu: start of the latest completed majority round
}

// callback is one of those who live as long as a session.
type callback struct {
	fn func(ctx context.Context, term uint64)
	mu sync.Mutex // held while fn runs: a session that follows quickly waits
}

func (cb *callback) run(ctx context.Context, term uint64) {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	if ctx.Err() == nil {
		cb.fn(ctx, term)
	}
}

// Session returns the open session of this node: its term and a context that ends
// with it. ok is false where this node does not lead, or not yet, or no more.
func (n *Node) Session() (term uint64, ctx context.Context, ok bool) {
	s := n.session.Load()
	if s == nil || n.CurrentTerm() != s.term {
		return 0, nil, false
	}
	return s.term, s.ctx, true
}

// leads reports whether the session of that term is open.
func (n *Node) leads(term uint64) bool {
	s := n.session.Load()
	return s != nil && s.term == term
}

// OnSession has fn called in each session of this node, on a goroutine of its own,
// with a context that ends with the session. The calls of one fn never overlap:
// the next waits until the one before has returned, and Run waits for the last.
// OnSession may only be called before Run.
func (n *Node) OnSession(fn func(ctx context.Context, term uint64)) {
	n.callbacks = append(n.callbacks, &callback{fn: fn})
}

// watchLeadership follows raft's leader channel, which keeps only the newest
// notice: a second "leading" means that leadership was lost and won again in
// between, so every notice ends what was before.
func (n *Node) watchLeadership(ctx context.Context, leading <-chan bool) {
	end := func() {}
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return
		case led := <-leading:
			end()
			end = func() {}
			if !led {
				continue
			}
			lctx, cancel := context.WithCancel(ctx)
			end = func() {
				cancel()
				if s := n.session.Swap(nil); s != nil {
					n.fresh.advance(s.lastMajority())
					n.logger.Info("leadership ended", "node", n.id, "term", s.term)
				}
				poke(n.queue.wake)
			}
			n.loops.Go(func() { n.lead(lctx) })
		}
	}
}

// lead opens a session as soon as this node's epoch operation is applied, and
// keeps what belongs to it running until ctx, the time of leading, ends.
func (n *Node) lead(ctx context.Context) {
	term, began, err := n.proposeEpoch(ctx)
	if err != nil {
		n.logger.Info("leadership lost before it began", "node", n.id, "err", err)
		return
	}
	// A majority stored the epoch operation after it was proposed, and did so in
	// this term: that is a majority round.
	s := &session{term: term, ctx: ctx, majority: began, links: voterLinks{busy: make(map[string]bool)}}
	s.confirms = newRounds(func(ctx context.Context) (time.Time, error) { return n.confirmRound(ctx, s) })
	if !n.openSession(ctx, s) {
		return
	}
	n.logger.Info("leading", "node", n.id, "term", term, "cluster", n.ClusterID())
	var wg sync.WaitGroup
	wg.Go(func() { s.confirms.run(ctx) })
	wg.Go(func() { n.keepConfirmed(ctx, s) })
	for _, cb := range n.callbacks {
		wg.Go(func() { cb.run(ctx, term) })
	}
	wg.Wait()
}

// openSession publishes s unless leadership was lost meanwhile. The order matters:
// the end of leading cancels ctx first and then takes the session away, so either
// it finds this one, or this sees ctx done.
func (n *Node) openSession(ctx context.Context, s *session) bool {
	n.session.Store(s)
	if ctx.Err() != nil {
		n.session.CompareAndSwap(s, nil)
		return false
	}
	n.fresh.advance(s.lastMajority())
	n.routes.forget()
	n.pausedUntil.Store(0) // what was refused elsewhere is welcome here
	poke(n.queue.wake)
	return true
}

// proposeEpoch proposes the operation a leader begins with and returns the term of
// its entry, which is the term this node leads in, and when it was proposed. It
// goes directly to raft: the queue only ships for a session that is open.
func (n *Node) proposeEpoch(ctx context.Context) (term uint64, began time.Time, err error) {
	for {
		op := n.fsm.EpochOp(randomHex(16))
		began = time.Now()
		future := n.raft.Load().ApplyLog(raft.Log{Data: n.fsm.Pack([][]byte{op}, n.stamp())}, enqueueTimeout)
		err = n.waitFuture(ctx, future)
		if err == nil {
			if term, err = epochTerm(future.Response()); err != nil {
				n.fail(exitErrorf(1, "opening a session: %w", err))
			}
			return term, began, err
		}
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			n.noteTransfer()
		}
		// Proposed twice it does no harm; and where leadership is lost ctx ends.
		if !sleep(ctx, retryEvery) {
			return 0, began, err
		}
	}
}

func epochTerm(response any) (uint64, error) {
	results, ok := response.([]encoding.BinaryAppender)
	if !ok || len(results) != 1 {
		return 0, fmt.Errorf("the state machine answered the epoch operation with %T", response)
	}
	b, err := results[0].AppendBinary(nil)
	if err != nil || len(b) != 8 {
		return 0, fmt.Errorf("the result of the epoch operation is %d bytes, not a term (%v)", len(b), err)
	}
	return binary.BigEndian.Uint64(b), nil
}

// waitFuture waits for a future or for ctx. A future may stay unanswered for ever
// when raft is shut down, so the goroutine that waits is not one Run insists on.
func (n *Node) waitFuture(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	n.futures.Go(func() { done <- future.Error() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sleep waits for d; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
