package cluster

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/peer"
)

// When a process dies its kernel tells everybody who is connected, at once. raft
// does not listen to that: its followers wait until they have heard nothing for one
// to three heartbeat timeouts. Here each follower keeps a question open at the
// leader; when the connection breaks, and a fresh dial of the leader's address is
// *refused*, the process is gone, and the follower hands itself the request by which
// leaders hand over (TimeoutNow), so that it becomes a candidate without waiting.
//
// raft's safety does not depend on when elections begin, and the lease keeper's
// depends on no clock of others; what has to be avoided is needless elections. Only
// a refusal counts: a reset, an end or a timeout may as well be the network's. Only
// a voter in raft's state Follower does it, since raft itself would not look; one
// after the other, by rank, while it knows no other leader and has not given its
// vote since; and at most twice for one lost leader. Then raft's own timers are left
// to do their work.
const (
	// lifeTerm is how long one question stays open.
	lifeTerm = 30 * time.Second
	// lifeRetry is the pause where there is no leader to ask, or none answers.
	lifeRetry = 50 * time.Millisecond
	// goneTries is how often a dial is tried to be refused, goneWait the pause: a
	// process that dies closes its connections before its listener or after.
	goneTries, goneWait = 20, 2 * time.Millisecond
	goneDial            = 200 * time.Millisecond
	// rankStep parts the candidatures of the survivors, electionAgain a second one
	// from the first.
	rankStep, electionAgain = 15 * time.Millisecond, 150 * time.Millisecond
)

// keyLastVoteTerm is where raft keeps the term it last voted in.
var keyLastVoteTerm = []byte("LastVoteTerm")

// handleLife holds a follower's question open for as long as this node leads.
func (n *Node) handleLife(ctx context.Context, _ peer.Hello, _ []byte) ([]byte, error) {
	s := n.session.Load()
	if s == nil {
		return nil, muster.Errorf(muster.CodeNoLeader, "this node does not lead")
	}
	select {
	case <-s.ctx.Done():
	case <-ctx.Done():
	case <-n.ended:
	}
	return nil, nil
}

// watchLife keeps a question open at the leader, and begins an election where its
// process turns out to be gone.
func (n *Node) watchLife(ctx context.Context, inject func(context.Context, raft.RPC) error) {
	spent := "" // the leader that elections were begun for, not reached since
	for ctx.Err() == nil {
		id, addr := n.raftLeader()
		if id == "" || id == n.id {
			sleep(ctx, lifeRetry)
			continue
		}
		term := n.CurrentTerm()
		lctx, cancel := context.WithTimeout(ctx, lifeTerm)
		_, err := n.port.Call(lctx, peer.At(id, addr), methodLife, nil)
		cancel()
		_, told := errors.AsType[*muster.Error](err)
		_, refused := errors.AsType[*peer.RefusedError](err)
		if !errors.Is(err, peer.ErrNotSent) {
			spent = ""
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil, errors.Is(err, context.DeadlineExceeded):
			// Asked again at once: of the next leader, or of the same.
		case told || refused:
			sleep(ctx, lifeRetry)
		case spent != id && n.processGone(ctx, addr):
			spent = id
			n.electFast(ctx, id, term, inject)
			sleep(ctx, lifeRetry)
		default:
			sleep(ctx, lifeRetry)
		}
	}
}

// processGone reports whether nobody listens at addr any more.
func (n *Node) processGone(ctx context.Context, addr string) bool {
	for range goneTries {
		dctx, cancel := context.WithTimeout(ctx, goneDial)
		err := n.port.Probe(dctx, addr)
		cancel()
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return true
		case err != nil && !errors.Is(err, syscall.ECONNRESET):
			return false // the network's silence says nothing
		}
		if !sleep(ctx, goneWait) {
			return false
		}
	}
	return false
}

// electFast begins at most two elections after the leader lost in that term.
func (n *Node) electFast(ctx context.Context, lost string, term uint64, inject func(context.Context, raft.RPC) error) {
	rank := n.rank(lost)
	if rank < 0 {
		return
	}
	n.logger.Info("the leader's process is gone", "node", n.id, "leader", lost, "term", term)
	if !sleep(ctx, time.Duration(rank)*rankStep) {
		return
	}
	if !n.voted(term) {
		n.candidate(ctx, lost, inject)
	}
	if sleep(ctx, electionAgain) {
		n.candidate(ctx, lost, inject)
	}
}

// rank is this node's place among the voters that are left; -1 where it has none.
func (n *Node) rank(lost string) int {
	var ids []string
	for _, id := range n.Voters() {
		if id != lost {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Index(ids, n.id)
}

// voted reports whether this node has given its vote since term.
func (n *Node) voted(term uint64) bool {
	last, err := n.store.GetUint64(keyLastVoteTerm)
	return err == nil && last > term
}

// candidate makes this node a candidate, unless there is another leader by now.
func (n *Node) candidate(ctx context.Context, lost string, inject func(context.Context, raft.RPC) error) {
	r := n.raft.Load()
	if id, _ := n.raftLeader(); id != "" && id != lost || r.State() != raft.Follower || n.rank(lost) < 0 {
		return
	}
	request := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	answer := make(chan raft.RPCResponse, 1) // read by nobody: the election shows
	if err := inject(ctx, raft.RPC{Command: request, RespChan: answer}); err == nil {
		n.metrics.fastElections.Inc()
	}
}
