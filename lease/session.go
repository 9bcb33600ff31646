package lease

import (
	"context"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// callsPerPeer bounds the calls that wait for a voter that does not answer. The
	// last is for one that says the outage.
	callsPerPeer = 4
	// deciders is how many decisions are in flight at once, and rounders how many
	// rounds of renewal.
	deciders = 2
	rounders = 2
)

// session is the keeper's work while this node leads. It begins when the leader's
// epoch entry has been applied, so the state holds everything that was committed
// before.
type session struct {
	k    *Keeper
	term uint64
	ctx  context.Context // the session's; nothing is decided or answered after it
	wg   sync.WaitGroup  // of calls to voters

	// Guarded by k.mu:

	led    *ledger   // nil until loaded
	buffer []Changes // observed while loading
	meter  shedMeter
	pace   load

	rounds    []*round // that wait; the last may be joined
	lastRound time.Duration
	lastDone  time.Duration   // until when renewals surely got through, see answered
	counted   time.Duration   // until when the time after it is in the outage
	calls     map[string]int  // in flight, by voter
	echoes    map[string]echo // the latest, by voter
	outage    Outage
	gathered  bool

	work chan struct{} // a token while there may be something to decide
	turn chan struct{} // a token while a round waits
}

// Lead keeps the leases while this node leads in that term: from the session's
// opening until ctx ends. It returns when all its goroutines have.
func (k *Keeper) Lead(ctx context.Context, term uint64) {
	s := &session{
		k: k, term: term, ctx: ctx, calls: map[string]int{}, echoes: map[string]echo{},
		work: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
	k.mu.Lock()
	k.session = s // from now on it observes: load misses nothing
	k.mu.Unlock()
	s.loadState()
	var wg sync.WaitGroup
	for range rounders {
		wg.Go(s.runRounds)
	}
	for range deciders {
		wg.Go(s.runDecisions)
	}
	wg.Go(s.gather)
	s.runSweeps()
	wg.Wait()
	s.end()
	s.wg.Wait()
}

// loadState takes over the leases of the state. What is observed meanwhile is
// applied on top, where the copy may hold it already: the last change of each
// lease wins.
func (s *session) loadState() {
	held := s.k.read()
	now := s.k.now()
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.led != nil {
		return // replaced as a whole meanwhile
	}
	s.load(held, now)
	for i := range s.buffer {
		s.led.apply(&s.buffer[i], now)
	}
	s.buffer = nil
}

func (s *session) load(c *content, now time.Duration) {
	s.led = newLedger(s.k.table, s.k.sw, s.k.cfg.MaxHold)
	s.led.load(c.leases, c.timers, now)
}

// observe follows the state; fresh is all of it where it was replaced. The keeper
// holds its mutex.
func (s *session) observe(c *Changes, fresh *content, now time.Duration) {
	switch {
	case fresh != nil:
		s.buffer = nil
		s.abandon()
		s.load(fresh, now)
		if s.gathered {
			s.led.armAll(now)
		}
	case s.led == nil:
		s.buffer = append(s.buffer, *c)
	default:
		s.led.apply(c, now)
	}
}

// abandon ends the flights of a ledger that is replaced: nobody learns their
// outcome from it any more. The keeper holds its mutex.
func (s *session) abandon() {
	if s.led == nil {
		return
	}
	for _, rec := range s.led.records {
		if rec.flight != nil {
			rec.flight.finish()
			rec.flight = nil
		}
	}
}

// runSweeps looks for leases that ran out at the end of each of the wheel's slots,
// and sends an empty round when none went out for that long.
func (s *session) runSweeps() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
		}
		now := s.k.now()
		s.noteShed(s.k.takeShed())
		s.k.mu.Lock()
		if s.led.armed && !s.unheard(now) {
			s.led.sweep(now, func(ttl time.Duration) bool { return s.meter.shedding(now, ttl) })
		}
		if now-s.lastRound >= TickEvery && len(s.rounds) == 0 {
			s.rounds = append(s.rounds, newRound(now))
			signal(s.turn)
		}
		s.pace.note(0) // an idle leader is not loaded
		s.k.metrics.suspect.Set(float64(s.led.suspects))
		s.k.metrics.governor.Set(float64(flag(s.led.suspects > 0)))
		s.k.mu.Unlock()
		signal(s.work)
		now = s.k.now()
		t.Reset((now/slotTime+1)*slotTime - now)
	}
}

// runDecisions proposes what there is to decide, one at a time.
func (s *session) runDecisions() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.work:
		}
		for s.ctx.Err() == nil && s.decide() {
		}
	}
}

// decide proposes one decision and settles it; it reports whether there was one.
func (s *session) decide() bool {
	wall := s.k.clock()
	s.k.mu.Lock()
	led := s.led
	var f *flight
	if now := wall.Sub(s.k.origin); !s.unheard(now) {
		f = led.next(now, wall)
	}
	s.k.mu.Unlock()
	if f == nil {
		return false
	}
	signal(s.work) // the other decider may find more
	index, err := s.k.log.Decide(s.ctx, s.term, f.Decision)
	if err == nil {
		// Only now does the ledger show what became of each lease.
		err = s.k.waitObserved(s.ctx, index)
	}
	now := s.k.now()
	s.k.mu.Lock()
	known := led.settle(f, err, now) // not s.led: a reset may have replaced it
	late := f.ended(now)
	s.k.mu.Unlock()
	s.k.metrics.decided(f, late, err)
	if err != nil && s.ctx.Err() == nil {
		s.k.logger.Warn("decision about leases not applied", "kind", f.Kind.String(), "leases", len(f.Leases),
			"term", s.term, "known", known, "err", err)
	}
	if f.Kind == Suspect && err == nil {
		s.k.logger.Warn("mass loss: leases held", "leases", len(f.Leases), "reason", f.Reason)
	}
	return true
}

// end refuses what still waits.
func (s *session) end() {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.k.session == s {
		s.k.session = nil
		s.k.metrics.suspect.Set(0)
		s.k.metrics.governor.Set(0)
	}
	for _, r := range s.rounds {
		r.finish(errNoLeader())
	}
	s.rounds = nil
}

func (s *session) noteShed(n uint64) {
	if n == 0 {
		return
	}
	now := s.k.now()
	s.k.mu.Lock()
	s.meter.add(now, 0, n)
	s.k.mu.Unlock()
}

func (s *session) stretch() int {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return s.pace.stretch()
}

// look says how much remains of a lease, confirmed by a round.
func (s *session) look(ctx context.Context, id muster.LeaseID) (ack lookAck, err error) {
	now := s.k.now()
	s.k.mu.Lock()
	if rec := s.led.records[id]; rec != nil {
		ack = lookAck{known: true, remaining: max(0, s.led.deadline(rec, now)-now)}
	}
	r, err := s.join(nil, now)
	s.k.mu.Unlock()
	if err == nil {
		err = r.wait(ctx)
	}
	return ack, err
}
