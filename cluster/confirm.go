package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/cluster/peer"
	"github.com/muster-registry/muster/wire"
)

// confirmEvery is the age at which the leader renews its knowledge that it leads
// when nothing else did. Every age a reader is told contains this one.
const confirmEvery = 100 * time.Millisecond

var errDeposed = errors.New("a newer term has begun")

// NoteMajority tells that a round of another room was answered by a majority of
// the voters, each having checked that its term was not above term, and when that
// round began. It counts for the freshness of every answer of the cluster.
func (n *Node) NoteMajority(term uint64, started time.Time) {
	if s := n.session.Load(); s != nil && s.term == term {
		s.noteMajority(started)
	}
}

func (s *session) noteMajority(started time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if started.After(s.majority) {
		s.majority = started
	}
}

// lastMajority is when the latest completed majority round began; zero: none yet.
func (s *session) lastMajority() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.majority
}

// confirm returns nil once a majority of the voters has said, after confirm was
// called, that no newer term than the session's had begun. raft raises and stores
// the term before a vote leaves, and majorities intersect: so no newer leader had
// been elected when confirm was called. It takes no clock, no pass through raft's
// main loop and one round trip, shared by all who wait.
func (n *Node) confirm(ctx context.Context, s *session) error {
	_, err := s.confirms.do(ctx)
	return err
}

// keepConfirmed makes a round whenever the last one of whatever kind is old.
func (n *Node) keepConfirmed(ctx context.Context, s *session) {
	for {
		if wait := confirmEvery - time.Since(s.lastMajority()); wait > 0 {
			if !sleep(ctx, wait) {
				return
			}
			continue
		}
		if err := n.confirm(ctx, s); err != nil && !sleep(ctx, confirmEvery) {
			return
		}
	}
}

// voterLinks keeps one question at a time on its way to each voter, so that one
// that does not answer costs one call, not one per round.
type voterLinks struct {
	mu   sync.Mutex
	busy map[string]bool // guarded by mu: a question is under way
	cur  *confirming     // guarded by mu: the round under way
}

// confirming is one round.
type confirming struct {
	asked   map[string]bool // guarded by voterLinks.mu
	answers chan voterAnswer
}

type voterAnswer struct {
	term uint64
	err  error
}

// confirmRound asks the voters once. It returns when the round began.
func (n *Node) confirmRound(ctx context.Context, s *session) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, n.timing.callTimeout)
	defer cancel()
	began := time.Now()
	voters := n.voters()
	round := &confirming{asked: make(map[string]bool), answers: make(chan voterAnswer, len(voters))}
	s.links.mu.Lock()
	s.links.cur = round
	s.links.mu.Unlock()
	defer func() {
		s.links.mu.Lock()
		s.links.cur = nil
		s.links.mu.Unlock()
	}()
	yes, no, need := 0, 0, len(voters)/2+1
	for _, v := range voters {
		if string(v.ID) == n.id {
			// Our own term is read after the round has begun, like the others'.
			round.answers <- voterAnswer{term: n.CurrentTerm()}
			continue
		}
		n.askVoter(s, v)
	}
	n.metrics.confirms.Inc()
	for {
		select {
		case <-ctx.Done():
			return began, fmt.Errorf("confirming: %d of %d voters answered: %w", yes, len(voters), ctx.Err())
		case a := <-round.answers:
			switch {
			case a.err != nil:
				no++
			case a.term > s.term:
				return began, errDeposed
			default:
				yes++
			}
			if yes >= need {
				s.noteMajority(began)
				return began, nil
			}
			if no > len(voters)-need {
				return began, fmt.Errorf("confirming: only %d of %d voters answered", yes, len(voters))
			}
		}
	}
}

// askVoter asks one voter for the round under way, unless an older question to it
// is still unanswered: then the answer to that starts this one.
func (n *Node) askVoter(s *session, v raft.Server) {
	id := string(v.ID)
	s.links.mu.Lock()
	defer s.links.mu.Unlock()
	round := s.links.cur
	if round == nil || s.links.busy[id] || round.asked[id] {
		return
	}
	s.links.busy[id] = true
	round.asked[id] = true
	n.loops.Go(func() {
		term, err := n.callConfirm(s, v)
		round.answers <- voterAnswer{term, err}
		s.links.mu.Lock()
		s.links.busy[id] = false
		s.links.mu.Unlock()
		n.askVoter(s, v) // if another round has begun meanwhile
	})
}

func (n *Node) callConfirm(s *session, v raft.Server) (uint64, error) {
	ctx, cancel := context.WithTimeout(s.ctx, n.timing.callTimeout)
	defer cancel()
	body, err := n.rpc(ctx, peer.At(string(v.ID), string(v.Address)), methodConfirm, nil)
	if err != nil {
		return 0, err
	}
	var term uint64
	err = wire.Each(body, func(f wire.Number, v uint64, _ []byte) error {
		if f == 1 {
			term = v
		}
		return nil
	})
	if err == nil && term == 0 {
		err = errIncomplete
	}
	return term, err
}

// handleConfirm tells this node's term.
func (n *Node) handleConfirm(context.Context, peer.Hello, []byte) ([]byte, error) {
	var m message
	m.uint(1, n.CurrentTerm())
	return m, nil
}
