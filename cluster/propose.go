package cluster

import (
	"context"
	"encoding"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fault"
)

const (
	// retryEvery is how long a node waits before it tries again what was not applied.
	retryEvery = 100 * time.Millisecond
	// localDepth is how many entries are on their way through raft at once: while
	// one is being replicated the next is being written. More would only make
	// entries smaller.
	localDepth = 2
	// enqueueTimeout bounds the wait for raft's main loop, which may be in an fsync.
	enqueueTimeout = 500 * time.Millisecond
)

// Propose has operations applied, through the leader wherever it is, and returns
// one Outcome per operation. They are applied in order, though not necessarily
// without others between them. What was certainly not applied is tried again
// until ctx is done, or for 5 s where ctx has no deadline; what may have been
// applied never is. ctx ends the waiting: operations nobody waits for any more are
// dropped unless they are already on their way.
func (n *Node) Propose(ctx context.Context, ops [][]byte) []Outcome {
	return n.traced(ctx, &call{ops: ops})
}

// ProposeVital is Propose for what makes the registry truer or smaller: it goes
// before what else waits, and is not refused where the leader is behind.
func (n *Node) ProposeVital(ctx context.Context, ops [][]byte) []Outcome {
	return n.traced(ctx, &call{ops: ops, vital: true})
}

// ProposeAs has the leader's own decisions applied: by this node, while its open
// session is that of term, or not at all.
func (n *Node) ProposeAs(ctx context.Context, term uint64, ops [][]byte) []Outcome {
	return n.propose(ctx, &call{ops: ops, term: term, here: true})
}

func (n *Node) propose(ctx context.Context, c *call) []Outcome {
	if len(c.ops) == 0 {
		return nil
	}
	for _, op := range c.ops {
		if len(op) > maxOpBytes {
			return n.inWords(refuseAll(c, fateRefused, "an operation is larger than a log entry may be"), muster.CodeBodyTooLarge)
		}
	}
	if n.stopping() || ctx.Err() != nil || (c.here && !n.leads(c.term)) {
		return n.inWords(refuseAll(c, fateRefused, ""), n.absence())
	}
	if n.full() {
		return n.inWords(refuseAll(c, fateDiskFull, ""), muster.CodeDiskFull)
	}
	ctx, cancel := within(ctx)
	defer cancel()
	c.deadline, _ = ctx.Deadline()
	if c.list() > 0 && n.Overloaded() != nil || !n.queue.add(c) {
		n.metrics.refused(c)
		return n.inWords(refuseAll(c, fateOverloaded, ""), muster.CodeOverloaded)
	}
	select {
	case <-c.done:
		return n.inWords(c.out, n.absence())
	case <-ctx.Done():
	case <-n.ended:
	}
	return n.inWords(n.queue.leave(c), n.absence())
}

// within gives ctx a deadline if it has none, and otherwise one a little earlier,
// so that the answer still finds its caller.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, muster.DefaultTimeout)
	}
	left := time.Until(deadline)
	return context.WithTimeout(ctx, left-min(50*time.Millisecond, left/20))
}

func refuseAll(c *call, f fate, detail string) []outcome {
	outs := make([]outcome, len(c.ops))
	for i := range outs {
		outs[i] = outcome{fate: f, detail: detail}
	}
	return outs
}

// absence is the code for "nobody could be found to apply it".
func (n *Node) absence() muster.Code {
	if n.stopping() {
		return muster.CodeShuttingDown
	}
	return muster.CodeNoLeader
}

// inWords turns outcomes into what callers are told; refused is the code of those
// that were refused without having been tried.
func (n *Node) inWords(outs []outcome, refused muster.Code) []Outcome {
	res := make([]Outcome, len(outs))
	for i, o := range outs {
		switch o.fate {
		case fateApplied:
			res[i].Result = o.result
		case fateOverloaded:
			res[i].Err = n.notApplied(muster.CodeOverloaded, o.detail)
		case fateDiskFull:
			res[i].Err = n.diskFull()
		case fateRefused:
			res[i].Err = n.notApplied(refused, o.detail)
		case fateNotApplied:
			code := n.absence()
			if n.session.Load() != nil {
				code = muster.CodeOverloaded // it waited here in vain, and there is a leader
			}
			res[i].Err = n.notApplied(code, o.detail)
		default:
			res[i].Err = muster.Errorf(muster.CodeOutcomeUnknown, "the write may or may not have been applied").
				WithHint("repeat it: registering, deregistering and renewing are safe to repeat").
				WithCause(errors.New(o.detail))
		}
	}
	return res
}

// notApplied is the error of an operation that certainly was not applied.
func (n *Node) notApplied(code muster.Code, detail string) error {
	switch code {
	case muster.CodeBodyTooLarge:
		return muster.Errorf(code, "%s", detail)
	case muster.CodeOverloaded:
		return overloaded("the leader has more writes waiting than it can log in time")
	case muster.CodeShuttingDown:
		return muster.Errorf(code, "this node is stopping").WithRetryAfter(jitter(time.Second))
	}
	e := n.noLeader("nothing was written")
	if detail != "" {
		e = e.WithCause(errors.New(detail))
	}
	return e
}

// noLeader is the error of what only a leader can do.
func (n *Node) noLeader(what string) *muster.Error {
	e := muster.Errorf(muster.CodeNoLeader, "no leader could be reached: %s", what).
		WithHint("a leader is usually elected within two seconds where a majority of the nodes can reach each other").
		WithRetryAfter(jitter(time.Second))
	_, e.Leader = n.Leader()
	return e
}

// jitter spreads the return of those who are sent away together.
func jitter(d time.Duration) time.Duration { return d + rand.N(d) }

// dispatch ships what waits in the queue, into raft or to the leader, whenever
// something changes: an operation came, a place on the way is free again, a
// leader is known.
func (n *Node) dispatch(ctx context.Context) {
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			n.queue.refuse(func(*call) bool { return true }, outcome{fate: fateRefused})
			return
		case <-n.queue.wake:
		case <-retry.C:
		}
		for n.shipNext(ctx) {
		}
	}
}

// shipNext ships one entry's worth of operations; false: there is nothing to
// ship, or nowhere to ship it to just now.
func (n *Node) shipNext(ctx context.Context) bool {
	s := n.session.Load()
	n.queue.refuse(func(c *call) bool {
		return c.here && (s == nil || (c.term != 0 && c.term != s.term))
	}, outcome{fate: fateRefused})
	if s == nil || n.holding.Load() {
		n.queue.closed(time.Now())
	}
	switch {
	case s != nil && n.local.Load() < localDepth && !n.holding.Load() && n.retryDue():
		parts := n.queue.take(func(*call) bool { return true })
		if len(parts) > 0 {
			n.shipLocal(ctx, parts)
		}
		return len(parts) > 0
	case s == nil:
		return n.shipRemote(ctx)
	}
	return false
}

// shipLocal packs the parts into one log entry. It waits for raft's main loop to
// take the entry, so that entries keep their order, but not for the outcome.
func (n *Node) shipLocal(ctx context.Context, parts []part) {
	var ops [][]byte
	for _, p := range parts {
		ops = append(ops, p.call.ops[p.from:p.to]...)
	}
	n.local.Add(1)
	if n.holding.Load() { // leadership goes since the dispatcher looked, and may not wait for this one
		n.local.Add(-1)
		n.queue.settle(parts, slices.Repeat([]outcome{{fate: fateNotApplied}}, len(ops)))
		return
	}
	began := time.Now()
	future := n.raft.Load().ApplyLog(raft.Log{Data: n.fsm.Pack(ops, n.stamp())}, enqueueTimeout)
	n.metrics.entryOps.Observe(float64(len(ops)))
	n.futures.Go(func() {
		outs := n.entryOutcomes(future, len(ops))
		if outs[0].fate == fateApplied {
			n.metrics.commitSeconds.Observe(time.Since(began).Seconds())
		}
		n.local.Add(-1)
		n.queue.settle(parts, outs)
	})
}

// stamp is the time of the next entry: the wall clock, but never backwards.
func (n *Node) stamp() time.Time {
	now := time.Now()
	for {
		last := n.lastStamp.Load()
		if now.UnixMilli() <= last {
			return time.UnixMilli(last)
		}
		if n.lastStamp.CompareAndSwap(last, now.UnixMilli()) {
			return now
		}
	}
}

// entryOutcomes waits for an entry. raft answers every future unless it is shut
// down with the entry already handed to the state machine; Run does not wait for
// that one.
func (n *Node) entryOutcomes(future raft.ApplyFuture, ops int) []outcome {
	err := future.Error()
	outs := make([]outcome, ops)
	f := fateUnknown
	switch {
	case err == nil:
		n.transfer.progressed()
		results, ok := future.Response().([]encoding.BinaryAppender)
		if !ok || len(results) != ops {
			n.fail(exitErrorf(1, "the state machine answered an entry of %d operations with %T", ops, future.Response()))
			return outs
		}
		for i, r := range results {
			b, err := r.AppendBinary(nil)
			if err != nil {
				n.fail(exitErrorf(1, "encoding the result of an operation: %w", err))
				return outs
			}
			outs[i] = outcome{fate: fateApplied, result: b}
		}
		return outs
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		n.noteTransfer()
		n.pause()
		f = fateNotApplied
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout):
		// Answered by raft before the entry was written anywhere.
		n.pause()
		f = fateNotApplied
	}
	if errors.Is(err, raft.ErrLeadershipLost) && fault.Is(fault.AckBeforeCommit) {
		f = fateApplied
	}
	for i := range outs {
		outs[i] = outcome{fate: f, detail: err.Error()}
	}
	return outs
}

// pause makes the node wait a little before it ships again.
func (n *Node) pause() { n.pausedUntil.Store(time.Now().Add(retryEvery).UnixNano()) }

func (n *Node) retryDue() bool { return time.Now().UnixNano() >= n.pausedUntil.Load() }
