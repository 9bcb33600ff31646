package cluster

import (
	"context"
	"errors"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/peer"
	"github.com/muster-registry/muster/fault"
	"github.com/muster-registry/muster/wire"
)

var errNotLeading = errors.New("this node does not lead")

// ReadIndex returns once the state of this node holds every write that was
// acknowledged, by any node, before ReadIndex was called.
func (n *Node) ReadIndex(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	index, err := n.Confirmed(ctx)
	if err != nil {
		return err
	}
	if err := n.fsm.WaitApplied(ctx, index); err != nil {
		return muster.Errorf(muster.CodeBehind, "this node has not caught up with the leader").
			WithRetryAfter(jitter(retryEvery)).WithCause(err)
	}
	return nil
}

// Confirmed returns the raft index that the leader had committed, confirmed by a
// majority after Confirmed was called.
func (n *Node) Confirmed(ctx context.Context) (raftIndex uint64, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	for {
		if n.stopping() {
			return 0, n.notApplied(muster.CodeShuttingDown, "")
		}
		raftIndex, err = n.confirmed(ctx)
		if err == nil {
			return raftIndex, nil
		}
		if !sleep(ctx, retryEvery) {
			return 0, n.noLeader("what is current cannot be said").WithCause(err)
		}
	}
}

func (n *Node) confirmed(ctx context.Context) (uint64, error) {
	if s := n.session.Load(); s != nil {
		return n.confirmedBy(ctx, s)
	}
	return n.readIndexes.do(ctx)
}

// confirmedBy takes the commit index before it asks the majority: what a newer
// leader commits is not in it, and if there is one the majority says so. It takes
// raft's commit index and not what this node has applied, because a follower may
// have applied more than that already, and been read.
func (n *Node) confirmedBy(ctx context.Context, s *session) (uint64, error) {
	index := n.raft.Load().CommitIndex()
	if fault.Is(fault.BareVerify) {
		return index, n.raft.Load().VerifyLeader().Error()
	}
	return index, n.confirm(ctx, s)
}

// askReadIndex asks the leader, once for all readers who wait here.
func (n *Node) askReadIndex(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, n.timing.callTimeout)
	defer cancel()
	body, err := n.callLeader(ctx, methodReadIndex, nil)
	if err != nil {
		return 0, err
	}
	var index uint64
	err = wire.Each(body, func(f wire.Number, v uint64, _ []byte) error {
		if f == 2 {
			index = v
		}
		return nil
	})
	if err == nil && index == 0 {
		err = errIncomplete
	}
	return index, err
}

// callLeader calls a method that the leader answers, and follows one redirection.
func (n *Node) callLeader(ctx context.Context, method string, body []byte) ([]byte, error) {
	for redirected := false; ; redirected = true {
		to, ok := n.leaderRoute()
		if !ok {
			return nil, errNotLeading
		}
		answer, err := n.rpc(ctx, peer.At(to.id, to.addr), method, body)
		if err != nil {
			return nil, err
		}
		elsewhere, err := redirection(answer)
		switch {
		case err != nil:
			return nil, err
		case elsewhere == nil:
			return answer, nil
		}
		if !n.routes.redirect(to, *elsewhere) || redirected {
			return nil, errNotLeading
		}
	}
}

// redirection is the notLeader in an answer; nil: it is a leader's.
func redirection(answer []byte) (l *notLeader, err error) {
	err = wire.Each(answer, func(f wire.Number, _ uint64, b []byte) (err error) {
		if f == fieldNotLeader {
			l, err = decodeNotLeader(b)
		}
		return err
	})
	return l, err
}

func (n *Node) handleReadIndex(ctx context.Context, _ peer.Hello, _ []byte) ([]byte, error) {
	s := n.awaitSession(ctx)
	if s == nil {
		return n.sayNotLeader(), nil
	}
	index, err := n.confirmedBy(ctx, s)
	if err != nil {
		return nil, n.noLeader("the majority does not answer").WithCause(err)
	}
	var m message
	m.uint(1, s.term)
	m.uint(2, index)
	return m, nil
}
