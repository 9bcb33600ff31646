package lease

import (
	"context"
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// roundIDs is how many ids a round has at most when somebody joins it.
	roundIDs = 1 << 16
	// roundQueue is the most rounds that may wait.
	roundQueue = 16
)

// round is one message to all voters: a batch of renewals and of verdicts that
// wait for a majority to confirm that this node still leads.
type round struct {
	ids   []muster.LeaseID
	since time.Duration
	done  chan struct{}
	err   error // set before done is closed
}

func newRound(now time.Duration) *round { return &round{since: now, done: make(chan struct{})} }

func (r *round) finish(err error) {
	r.err = err
	close(r.done)
}

func (r *round) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return errNoLeader().WithCause(context.Cause(ctx))
	}
}

// join adds renewals, which have been merged into our own table, to the round
// that goes out next. The keeper holds its mutex.
func (s *session) join(ids []muster.LeaseID, now time.Duration) (*round, error) {
	if s.ctx.Err() != nil {
		return nil, errNoLeader()
	}
	n := len(s.rounds)
	if n == 0 || len(s.rounds[n-1].ids)+len(ids) > roundIDs {
		if n == roundQueue {
			return nil, muster.Errorf(muster.CodeOverloaded, "too many renewals wait for a majority").WithRetryAfter(time.Second)
		}
		s.rounds = append(s.rounds, newRound(now))
	}
	r := s.rounds[len(s.rounds)-1]
	r.ids = append(r.ids, ids...)
	s.meter.add(now, uint64(len(ids)), 0)
	signal(s.turn)
	return r, nil
}

// runRounds sends rounds one after the other; rounders of them do so at once.
// There is no timer: the next round carries what has gathered meanwhile.
func (s *session) runRounds() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.turn:
		}
		started := s.k.now()
		s.k.mu.Lock()
		var r *round
		if len(s.rounds) > 0 {
			r, s.rounds = s.rounds[0], s.rounds[1:]
			s.lastRound = started
		}
		if len(s.rounds) > 0 {
			signal(s.turn)
		}
		s.away(started)
		m := renewMsg{term: s.term, outage: s.outage, outageKnown: s.gathered}
		s.k.mu.Unlock()
		if r == nil {
			continue
		}
		m.ids = r.ids
		err := s.round(&m)
		r.finish(err)
		now := s.k.now()
		s.k.mu.Lock()
		s.pace.note(now - r.since)
		s.k.mu.Unlock()
		s.k.metrics.round(len(r.ids), now-started, err)
	}
}

// round has a majority of the voters merge renewals and acknowledge them.
//
// This node takes the two steps of a voter itself, in the order of handleRenew:
// the ids were merged into our own table when they joined the round; only then is
// our term read. And the round starts after whoever waits for it has been looked
// up, so that its majority also stands behind "unknown": no newer leader, who
// could have granted what we do not know, had been elected when it started.
func (s *session) round(m *renewMsg) error {
	wall := s.k.clock()
	started := wall.Sub(s.k.origin)
	if s.k.raft.CurrentTerm() > s.term {
		return errNoLeader()
	}
	voters, self := s.k.raft.Voters(), s.k.raft.ID()
	need := len(voters)/2 + 1
	acks := 0
	if slices.Contains(voters, self) {
		acks++
	}
	body := slices.Clip(m.append(nil)) // what is appended for one voter is his alone
	answers := make(chan renewAck, len(voters))
	asked := 0
	for _, v := range voters {
		if v == self {
			continue
		}
		if stamp, ok := s.begin(v, m); ok {
			asked++
			s.wg.Go(func() { answers <- s.ask(v, appendEcho(body, stamp), started) })
		}
	}
	for ; acks < need && asked > 0; asked-- {
		select {
		case a := <-answers:
			if a.ok {
				acks++
			} else if a.term > s.term {
				return errNoLeader()
			}
		case <-s.ctx.Done():
			return errNoLeader()
		}
	}
	if acks < need {
		return errNoLeader()
	}
	if m.outageKnown {
		s.k.table.Ack(s.term, m.outage, started, started)
		s.answered(started)
	}
	s.k.raft.NoteMajority(s.term, wall)
	return nil
}

// answered notes that a round of then got its majority: until then, and a moment
// longer, renewals got through. How much later its answers were read proves nothing:
// this node may have been stopped in between. The keeper does not hold its mutex.
func (s *session) answered(started time.Duration) {
	now := s.k.now()
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.lastDone = max(s.lastDone, min(started+TickEvery, now))
}

// unheard reports whether no round has got its majority for so long that silence
// proves nothing: nothing is ended then. The keeper holds its mutex.
func (s *session) unheard(now time.Duration) bool {
	return s.gathered && stalled(now-s.lastDone)
}

// away counts such a time as an outage, though no other leader has been elected: we
// were stopped, or cut off and did not notice. It is told with the round that ends
// it, because that may be our last, and nobody else could know. The keeper holds its
// mutex.
func (s *session) away(now time.Duration) {
	if s.unheard(now) {
		s.outage.Total += now - max(s.lastDone, s.counted)
		s.counted = now
	}
}

// echo is the stamp of a voter's acknowledgement, for our next Renew to it.
type echo struct {
	stamp uint64
	asked time.Duration // when the round began that it acknowledged
}

// begin counts a call to a voter and returns the stamp to echo; 0: none. Not ok: too
// many calls wait for it already, and the others make the majority.
func (s *session) begin(voter string, m *renewMsg) (stamp uint64, ok bool) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if n := s.calls[voter]; n >= callsPerPeer || n == callsPerPeer-1 && !m.outageKnown {
		s.k.metrics.skipped.Inc()
		return 0, false
	}
	s.calls[voter]++
	return s.echoes[voter].stamp, true
}

func (s *session) ask(voter string, body []byte, asked time.Duration) (ack renewAck) {
	ctx, cancel := context.WithTimeout(s.ctx, s.k.cfg.CallTimeout)
	defer cancel()
	b, err := s.k.peers.Call(ctx, voter, methodRenew, body)
	if err == nil {
		err = ack.parse(b)
	}
	s.k.mu.Lock()
	s.calls[voter]--
	if err == nil && ack.ok && asked >= s.echoes[voter].asked {
		s.echoes[voter] = echo{ack.stamp, asked}
	}
	s.k.mu.Unlock()
	if err != nil {
		return renewAck{}
	}
	return ack
}
