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
	"github.com/muster-registry/muster/wire"
)

var errNoSuccessor = errors.New("there is no other voter alive")

// TransferLeadership hands leadership over to the member of that id, or to the
// voter that lacks least where to is "". It returns once this node no longer leads,
// or the leader that was asked no longer does.
func (n *Node) TransferLeadership(ctx context.Context, to string) error {
	return n.askOperator(ctx, methodTransfer, to, func(ctx context.Context) error { return n.transferTo(ctx, to) })
}

// RemoveMember removes a member for good: its id never comes back. It refuses, with
// a conflict, where the voters that are left could not decide anything.
func (n *Node) RemoveMember(ctx context.Context, id string) error {
	return n.askOperator(ctx, methodRemove, id, func(ctx context.Context) error { return n.removeMember(ctx, id) })
}

// Leave takes this node out of the cluster for good. Where it returns nil the node
// is out, and Run returns nil by itself.
func (n *Node) Leave(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	n.leaving.Store(true)
	n.gossip.announce()
	for {
		err := n.RemoveMember(ctx, n.id)
		switch {
		case err == nil, n.fsm.MemberRemoved(n.id), n.left():
			n.fail(nil)
			return nil
		case errors.Is(err, muster.CodeConflict), !sleep(ctx, retryEvery):
			n.leaving.Store(false)
			n.gossip.announce()
			return err
		}
	}
}

// left reports whether the node has ended because it was to leave: the others told
// it before its own request was answered.
func (n *Node) left() bool {
	select {
	case <-n.failed:
		return n.failure.err == nil
	default:
		return false
	}
}

// askOperator carries out what only the leader can: here, or by a call to it. It is
// tried again where nothing was done, until ctx ends.
func (n *Node) askOperator(ctx context.Context, method, id string, here func(ctx context.Context) error) error {
	ctx, cancel := within(ctx)
	defer cancel()
	for {
		var err error
		if n.session.Load() != nil {
			err = here(ctx)
		} else {
			var body message
			body.string(1, id)
			_, err = n.callLeader(ctx, method, body)
			err = n.callError("", err)
		}
		if err == nil || !errors.Is(err, muster.CodeNoLeader) || n.left() {
			return err
		}
		if !sleep(ctx, retryEvery) {
			return err
		}
	}
}

// callError puts the failure of an internal call into words.
func (n *Node) callError(id string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*muster.Error](err); ok {
		return err
	}
	if errors.Is(err, peer.ErrNotSent) || errors.Is(err, errNotLeading) {
		return n.noLeader("nothing was done").WithCause(err)
	}
	if id == "" {
		id = "the leader"
	}
	return muster.Errorf(muster.CodeOutcomeUnknown, "%s did not answer", id).WithCause(err)
}

func (n *Node) handleTransfer(ctx context.Context, _ peer.Hello, body []byte) ([]byte, error) {
	return n.serveOperator(body, func(id string) error { return n.transferTo(ctx, id) })
}

func (n *Node) handleRemove(ctx context.Context, _ peer.Hello, body []byte) ([]byte, error) {
	return n.serveOperator(body, func(id string) error { return n.removeMember(ctx, id) })
}

func (n *Node) serveOperator(body []byte, do func(id string) error) ([]byte, error) {
	if n.session.Load() == nil {
		return n.sayNotLeader(), nil
	}
	id := ""
	err := wire.Each(body, func(f wire.Number, _ uint64, b []byte) error {
		if f == 1 {
			id = string(b)
		}
		return nil
	})
	if err != nil {
		return nil, muster.Errorf(muster.CodeInternal, "reading an internal call: %v", err)
	}
	return nil, do(id)
}

// member finds a member of the configuration.
func (n *Node) member(id string) (raft.Server, error) {
	for _, s := range n.servers() {
		if string(s.ID) == id {
			return s, nil
		}
	}
	return raft.Server{}, muster.Errorf(muster.CodeUnknownMember, "%q is not a member of this cluster", clip(id, 64)).
		WithHint("list the members with GET /v1/cluster")
}

func (n *Node) transferTo(ctx context.Context, to string) error {
	if to == n.id {
		return nil
	}
	if to != "" {
		s, err := n.member(to)
		if err != nil {
			return err
		}
		if s.Suffrage != raft.Voter {
			return muster.Errorf(muster.CodeConflict, "member %s is a learner and cannot lead", to)
		}
	}
	err := n.handOver(ctx, to)
	if errors.Is(err, errNoSuccessor) {
		return muster.Errorf(muster.CodeConflict, "there is no other voter alive to lead")
	}
	if err != nil {
		return n.noLeader("leadership was not handed over").WithCause(err)
	}
	return nil
}

// handOver hands leadership to a voter; "": to the live one that lacks least. raft
// would choose by what it has sent, also to the dead.
func (n *Node) handOver(ctx context.Context, to string) error {
	if to == "" {
		if to = n.successor(ctx); to == "" {
			return errNoSuccessor
		}
	}
	s, err := n.member(to)
	if err != nil {
		return err
	}
	n.logger.InfoContext(ctx, "handing leadership over", "node", n.id, "member", to)
	// What is under way when raft lets go would end in outcome_unknown.
	n.holding.Store(true)
	defer func() {
		n.holding.Store(false)
		poke(n.queue.wake)
	}()
	for end := time.Now().Add(n.timing.callTimeout); n.local.Load() > 0 && time.Now().Before(end); {
		if !sleep(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
	// Catching up and the election may each take an election timeout.
	ctx, cancel := context.WithTimeout(ctx, 2*n.timing.heartbeat+time.Second)
	defer cancel()
	return n.waitFuture(ctx, n.raft.Load().LeadershipTransferToServer(s.ID, s.Address))
}

// successor asks the other voters and returns the one that has applied most.
func (n *Node) successor(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, n.timing.heartbeat)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var best nodeStatus
	for _, s := range n.voters() {
		if string(s.ID) == n.id {
			continue
		}
		wg.Go(func() {
			st, err := n.askStatus(ctx, peer.At(string(s.ID), string(s.Address)))
			if err != nil || st.low && n.space.low.Load() {
				return // it would hand leadership back
			}
			mu.Lock()
			defer mu.Unlock()
			if best.id == "" || best.low && !st.low || best.low == st.low && st.applied > best.applied {
				best = st
			}
		})
	}
	wg.Wait()
	return best.id
}

// removeMember removes a member on this node, which leads. Were it the leader
// itself, the next one is to do it.
func (n *Node) removeMember(ctx context.Context, id string) error {
	s := n.session.Load()
	if s == nil {
		return n.noLeader("nothing was done")
	}
	target, err := n.member(id)
	if err != nil {
		return err
	}
	r := &reconciler{n: n, term: s.term, began: time.Now(), contacts: make(map[string]*contact)}
	r.look(ctx)
	v := r.view(nil)
	for i := range v.members {
		m := &v.members[i]
		if m.id == id && !v.safeWithout(m) {
			all, live := v.voters()
			return muster.Errorf(muster.CodeConflict, "without %s the voters that live (%d of %d do) would not be a majority", id, live, all).
				WithHint("start or replace other members first")
		}
	}
	if id == n.id {
		if err := n.handOver(ctx, ""); err != nil {
			return n.noLeader("the leader could not step down").WithCause(err)
		}
		return n.noLeader("the next leader is to remove the one that was")
	}
	err = n.carryOut(ctx, s.term, change{
		kind: changeRemove, id: id, addr: string(target.Address), voter: target.Suffrage == raft.Voter, reason: "it was asked for",
	})
	if err != nil {
		return fmt.Errorf("removing member %s: %w", id, n.callError("", err))
	}
	return nil
}
