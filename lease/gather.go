package lease

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/muster-registry/muster"
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
}

// gather brings together what a majority of the voters have heard, so that leases
// go on where they were, and then begins to watch for their ends. Nothing expires
// before. Safety does not depend on it: for a lease without such a majority it is
// as if it had been heard from now.
func (s *session) gather() {
	began := s.k.now()
	ctx, cancel := context.WithTimeout(s.ctx, s.k.cfg.GatherTimeout)
	defer cancel()
	answers, asOf := s.collect(ctx)
	if s.ctx.Err() != nil {
		return
	}
	now := s.k.now()
	g := newGathering(answers, len(s.k.raft.Voters()), now)
	s.k.mu.Lock()
	g.merge(s.led)
	s.k.table.TakeOver(s.term, g.outage, asOf, now, func(id muster.LeaseID, own time.Duration) time.Duration {
		return g.heard(s.led.records[id], own)
	})
	kept, full := g.settle(s.led)
	s.outage, s.gathered = g.outage, true
	s.led.armAll(now)
	s.k.mu.Unlock()
	s.k.metrics.gathered(kept, full, now-began, g.outage)
	s.k.logger.Info("leases taken over", "term", s.term, "shadows", len(answers), "kept", kept, "full_ttl", full, "outage", g.outage)
}

// collect asks all voters until those that count for every TTL are a majority,
// all have answered, or ctx ends. It also returns when our own was copied.
func (s *session) collect(ctx context.Context) (all []answered, asOf time.Duration) {
	voters, self := s.k.raft.Voters(), s.k.raft.ID()
	s.k.mu.Lock()
	parts := min(1+len(s.led.records)/partLeases, maxParts)
	longest := time.Duration(0)
	for _, rec := range s.led.records {
		longest = max(longest, rec.ttl)
	}
	s.k.mu.Unlock()

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
	for ; open > 0 && !covers(all, len(voters), longest); open-- {
		select {
		case a := <-got:
			all = append(all, a)
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
	a.Stalled = min(a.Stalled, s.Stalled)
	a.Applied = min(a.Applied, s.Applied)
	a.IDs, a.Ages = append(a.IDs, s.IDs...), append(a.Ages, s.Ages...)
}

// counts reports whether a table of that age counts for a lease of that TTL: it
// has heard of every renewal that still matters.
func counts(age, ttl time.Duration) bool { return age >= ttl+slack(ttl) }

func covers(all []answered, voters int, longest time.Duration) bool {
	n := 0
	for i := range all {
		if counts(all[i].Age, longest) {
			n++
		}
	}
	return n > voters/2
}

// gathering is what a new leader makes of the shadows it got.
type gathering struct {
	now     time.Duration
	answers []answered // the oldest tables first
	need    int        // a majority
	voters  int
	outage  time.Duration
	credits [][]time.Duration // [tables that count][table]: what to add
}

func newGathering(answers []answered, voters int, now time.Duration) *gathering {
	g := &gathering{now: now, answers: answers, voters: voters, need: voters/2 + 1}
	slices.SortFunc(g.answers, func(a, b answered) int { return cmp.Compare(b.Age, a.Age) })
	for n := range len(answers) + 1 {
		credit := make([]time.Duration, len(answers))
		for i := range answers {
			credit[i] = max(0, g.outageOf(n)-answers[i].Stalled)
		}
		g.credits = append(g.credits, credit)
	}
	g.outage = g.outageOf(len(answers))
	return g
}

// outageOf is how long at least no lease could be renewed before now, going by the
// first n tables. The last round that got its majority was acknowledged by all
// but voters-need of them, and so by at least n+need-voters of these n.
func (g *gathering) outageOf(n int) time.Duration {
	if n == 0 {
		return 0
	}
	acked := make([]time.Duration, n)
	for i := range acked {
		acked[i] = g.answers[i].at - g.answers[i].AckAge
	}
	slices.SortFunc(acked, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	return max(0, g.now-acked[max(0, n+g.need-g.voters-1)])
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
			rec := l.records[id]
			if rec == nil {
				continue
			}
			if n := g.counting(rec.ttl); i < n {
				at := a.at - a.Ages[j] + g.credits[n][i] + slack(a.Ages[j])
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
