package lease

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fault"
)

const (
	// gatherRetry is the pause before a voter that could not answer is asked again.
	gatherRetry = 50 * time.Millisecond
	// partLeases is about how many leases a part of a shadow holds.
	partLeases = 100_000
)

// answered is the shadow of one voter, and when it arrived.
type answered struct {
	Shadow
	at   time.Duration
	self bool
	// missing is how much of the outages is not out of its ages yet.
	missing time.Duration
}

// gather brings together what a majority of the voters have heard, so that leases
// go on where they were, and then begins to watch for their ends. Nothing expires
// before. Safety does not depend on it: for a lease without such a majority it is
// as if it had been heard from now.
func (s *session) gather() {
	began := s.k.now()
	parts, longest := s.extent()
	// Ten parts take ten times as long to copy, carry and read as one.
	ctx, cancel := context.WithTimeout(s.ctx, time.Duration(parts)*s.k.cfg.GatherTimeout)
	defer cancel()
	answers, asOf := s.collect(ctx, parts, longest)
	if s.ctx.Err() != nil {
		return
	}
	now := s.k.now()
	g := newGathering(answers, len(s.k.raft.Voters()), now)
	s.k.mu.Lock()
	g.merge(s.led)
	s.k.table.TakeOver(g.outage, asOf, now, func(id muster.LeaseID, own time.Duration) time.Duration {
		return g.heard(s.led.records[id], own)
	})
	kept, full := g.settle(s.led)
	s.outage, s.gathered, s.lastDone = g.outage, true, now
	s.led.armAll(now)
	s.k.mu.Unlock()
	s.k.metrics.gathered(kept, full, now-began, g.outage.Last)
	s.k.logger.Info("leases taken over", "term", s.term, "shadows", len(answers), "kept", kept, "full_ttl", full, "outage", g.outage.Last)
}

// extent is in how many parts a shadow is asked for, and the longest TTL.
func (s *session) extent() (parts int, longest time.Duration) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	for _, rec := range s.led.records {
		longest = max(longest, rec.ttl)
	}
	return min(1+len(s.led.records)/partLeases, maxParts), longest
}

// collect asks all voters until those that count for every TTL are a majority,
// all have answered, or ctx ends. It also returns when our own was copied.
func (s *session) collect(ctx context.Context, parts int, longest time.Duration) (all []answered, asOf time.Duration) {
	voters, self := s.k.raft.Voters(), s.k.raft.ID()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got := make(chan answered, len(voters))
	open := 0
	// Our own term has been reached: that is how the session opened.
	asOf = s.k.now()
	own := s.k.table.Copy(0, 1, asOf)
	own.IDs, own.Ages = nil, nil // TakeOver brings them in
	all = []answered{{Shadow: own, at: asOf, self: true}}
	for _, v := range voters {
		if v != self {
			open++
			s.wg.Go(func() { s.askShadow(ctx, v, parts, got) })
		}
	}
	// Who is silent while a majority has answered is not waited for as long as ten
	// parts may take.
	var enough <-chan time.Time
	for ; open > 0 && !covers(all, len(voters), longest, s.k.now()); open-- {
		if enough == nil && 2*len(all) > len(voters) {
			t := time.NewTimer(s.k.cfg.GatherTimeout)
			defer t.Stop()
			enough = t.C
		}
		select {
		case a := <-got:
			all = append(all, a)
		case <-enough:
			return all, asOf
		case <-ctx.Done():
			return all, asOf
		}
	}
	return all, asOf
}

// askShadow asks a voter until it answers or ctx ends.
func (s *session) askShadow(ctx context.Context, voter string, parts int, got chan<- answered) {
	for {
		var a answered
		part := 0
		for ; part < parts; part++ {
			b, err := s.k.peers.Call(ctx, voter, methodGather, (&gatherMsg{s.term, part, parts}).append(nil))
			var m gatherAck
			if err != nil || m.parse(b) != nil || !m.ok {
				break
			}
			a.join(m.shadow, s.k.now(), part == 0)
		}
		if part == parts {
			got <- a
			return
		}
		t := time.NewTimer(gatherRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// join adds a part of a shadow that arrived at that time. Ages are brought to the
// time of the first part.
func (a *answered) join(s Shadow, at time.Duration, first bool) {
	if first {
		a.Shadow, a.at = s, at
		return
	}
	later := at - a.at
	for i := range s.Ages {
		s.Ages[i] -= later
	}
	a.Age = min(a.Age, max(0, s.Age-later))
	a.AckAge = min(a.AckAge, max(0, s.AckAge-later))
	a.told.stalled = min(a.told.stalled, s.told.stalled)
	a.Applied = min(a.Applied, s.Applied)
	a.IDs, a.Ages = append(a.IDs, s.IDs...), append(a.Ages, s.Ages...)
}

// ackAge is how long before now the table last acknowledged a Renew.
func (a *answered) ackAge(now time.Duration) time.Duration { return max(0, now-a.at+a.AckAge) }

// counts reports whether a table of that age counts for a lease of that TTL: it
// has heard of every renewal that still matters.
func counts(age, ttl time.Duration) bool {
	return age >= ttl+slack(ttl) || fault.Is(fault.NoAgeRule)
}

// covers reports whether those that count for all leases are a majority.
func covers(all []answered, voters int, longest, now time.Duration) bool {
	g := newGathering(all, voters, now)
	return g.counting(longest) >= g.need
}

// gathering is what a new leader makes of the shadows it got.
type gathering struct {
	now     time.Duration
	answers []answered // the oldest tables first
	need    int        // a majority
	outage  Outage
}

func newGathering(answers []answered, voters int, now time.Duration) *gathering {
	g := &gathering{now: now, answers: slices.Clone(answers), need: voters/2 + 1, outage: outageOf(answers, voters, now)}
	for i := range g.answers {
		a := &g.answers[i]
		a.missing = a.told.missing(g.outage, a.ackAge(now))
		if a.Age > 0 { // a voter's; it has aged since, and what is missing goes up to now
			a.Age = max(0, a.Age+now-a.at-a.missing)
		}
	}
	slices.SortFunc(g.answers, func(a, b answered) int { return cmp.Compare(b.Age, a.Age) })
	return g
}

// counting is the number of tables that count for a lease of that TTL.
func (g *gathering) counting(ttl time.Duration) int {
	n := 0
	for n < len(g.answers) && counts(g.answers[n].Age, ttl) {
		n++
	}
	return n
}

// merge notes with each record the youngest age that counts, but for our own.
func (g *gathering) merge(l *ledger) {
	for i := range g.answers {
		a := &g.answers[i]
		for j, id := range a.IDs {
			if rec := l.records[id]; rec != nil && i < g.counting(rec.ttl) {
				at := a.at - a.Ages[j] + a.missing + slack(a.Ages[j])
				rec.gathered = max(rec.gathered, min(at, g.now))
			}
		}
	}
}

// heard is when a lease was heard from, where our own table says own. Our own
// counts where it is old enough like any other. Where it is not, its times are
// mostly those of its start and would keep the dead; but it alone may know of a
// registration that no other has applied yet, and then it counts too.
func (g *gathering) heard(rec *record, own time.Duration) time.Duration {
	if rec == nil {
		return own
	}
	n := g.counting(rec.ttl)
	if n < g.need {
		return g.now // a full TTL
	}
	known := false
	for i := range g.answers[:n] {
		a := &g.answers[i]
		if a.self {
			return max(own, rec.gathered)
		}
		known = known || a.Applied >= rec.generation
	}
	if !known || rec.gathered == never {
		return max(own, rec.gathered)
	}
	return rec.gathered
}

// settle returns how many leases went on and how many got a full TTL, and brings
// back those the governor holds that were heard from since.
func (g *gathering) settle(l *ledger) (kept, full int) {
	for _, rec := range l.records {
		if g.counting(rec.ttl) < g.need {
			full++
			continue
		}
		if kept++; rec.suspect && l.deadline(rec, g.now) > g.now {
			l.renew(rec, g.now)
		}
	}
	return kept, full
}
