package health

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// sweepEvery is how often a session looks at what only time changes.
	sweepEvery = 250 * time.Millisecond
	// countEvery is how often it counts and looks for the dead.
	countEvery = time.Second
	// maxBatch is the most instances of one decision, and maxBatchBytes about how
	// large it may be: well within a log entry.
	maxBatch      = 500
	maxBatchBytes = 128 << 10
)

// session is the supervisor's work while this node leads. All of it is guarded by
// the supervisor's mutex.
type session struct {
	s    *Supervisor
	term uint64
	ctx  context.Context // the session's; nothing is decided after it

	heard   map[string]sign
	set     *probers
	version uint64
	dockets map[*target]*docket
	touched map[*target]struct{} // to be judged
	waiting map[*target]struct{} // to be judged again as time passes
	work    chan struct{}        // a token while something is touched
}

// sign is a node's last sign of life.
type sign struct {
	boot uint64
	at   time.Time
}

// Lead decides about checks while this node leads in that term: from the
// session's opening until ctx ends.
func (s *Supervisor) Lead(ctx context.Context, term uint64) {
	ss := s.open(ctx, term)
	defer s.close(ss)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var counted, searched time.Time
	for {
		for batch := ss.next(time.Now()); len(batch) > 0; batch = ss.next(time.Now()) {
			if !s.decide(ctx, ss, batch) && !sleep(ctx, retryAfter) {
				return
			}
		}
		if now := time.Now(); now.Sub(counted) >= countEvery {
			counted = now
			s.count(ss)
		}
		if now := time.Now(); now.Sub(searched) >= conflictsEvery {
			searched = now
			s.searchConflicts()
		}
		select {
		case <-ctx.Done():
			return
		case <-ss.work:
		case <-tick.C:
			ss.sweep(time.Now())
		}
	}
}

// open begins a session. Until the nodes have spoken for themselves, those that
// are taken to be alive are the probers, so that checks do not move about.
func (s *Supervisor) open(ctx context.Context, term uint64) *session {
	live := s.deps.Raft.Live()
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	ss := &session{
		s: s, term: term, ctx: ctx, heard: map[string]sign{s.deps.Raft.ID(): {s.boot, now}}, dockets: make(map[*target]*docket),
		touched: make(map[*target]struct{}), waiting: make(map[*target]struct{}), work: make(chan struct{}, 1),
	}
	for _, id := range live {
		if _, ok := ss.heard[id]; !ok {
			ss.heard[id] = sign{at: now}
		}
	}
	s.session = ss
	ss.regroup()
	return ss
}

func (s *Supervisor) close(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == ss {
		s.session = nil
	}
	s.metrics.leads(nil)
}

// alive notes that a node has reported. One that has been started anew holds none
// of the opinions any more that it has sent before.
func (ss *session) alive(id string, boot uint64, now time.Time) {
	before, known := ss.heard[id]
	ss.heard[id] = sign{boot, now}
	if known && before.boot != boot && before.boot != 0 {
		for _, d := range ss.dockets {
			d.forget(func(st statement) bool { return st.from == id })
		}
	}
	if !known {
		ss.regroup()
	}
}

// regroup makes the set of probers anew. Opinions of those that own a check no
// more are forgotten: they probe it no more.
func (ss *session) regroup() {
	ss.set = newProbers(slices.Sorted(maps.Keys(ss.heard)))
	ss.version++
	for t, d := range ss.dockets {
		d.forget(func(st statement) bool {
			first, second := ss.set.owners(checkHash(t.key, st.place))
			return st.from != first && st.from != second
		})
	}
	for _, t := range ss.s.roster {
		ss.touch(t)
	}
}

// sweep drops nodes that have fallen silent and has judged again what waits for
// time to pass.
func (ss *session) sweep(now time.Time) {
	ss.s.mu.Lock()
	var silent []string
	for id, sign := range ss.heard {
		if id != ss.s.deps.Raft.ID() && now.Sub(sign.at) > ss.s.cfg.Silence {
			delete(ss.heard, id)
			silent = append(silent, id)
		}
	}
	if len(silent) > 0 {
		ss.regroup()
	}
	for t := range ss.waiting {
		ss.touch(t)
	}
	ss.s.mu.Unlock()
	for _, id := range silent {
		ss.s.log.Info("node probes no more", "node", id, "term", ss.term)
	}
}

func (ss *session) touch(t *target) {
	ss.touched[t] = struct{}{}
	poke(ss.work)
}

func (ss *session) drop(t *target) {
	delete(ss.touched, t)
	delete(ss.waiting, t)
	delete(ss.dockets, t)
}

func (ss *session) docket(t *target, now time.Time) *docket {
	d := ss.dockets[t]
	if d == nil {
		d = newDocket(t.inst, now)
		ss.dockets[t] = d
	}
	return d
}

// next judges what was touched and returns what is to be decided, at most
// maxBatch.
func (ss *session) next(now time.Time) (batch []*ruling) {
	ss.s.mu.Lock()
	defer ss.s.mu.Unlock()
	if ss.ctx.Err() != nil {
		return nil
	}
	size := 0
	for t := range ss.touched {
		if len(batch) == maxBatch || size >= maxBatchBytes {
			break
		}
		delete(ss.touched, t)
		r, waiting := ss.docket(t, now).judge(t.inst, ss.set, now)
		if waiting {
			ss.waiting[t] = struct{}{}
		} else {
			delete(ss.waiting, t)
		}
		if r != nil {
			r.t = t
			size += r.size()
			batch = append(batch, r)
		}
	}
	return batch
}

// decide has a batch applied. What was not is touched again.
func (s *Supervisor) decide(ctx context.Context, ss *session, batch []*ruling) bool {
	all := make([]Transition, len(batch))
	for n, r := range batch {
		all[n] = r.Transition
	}
	err := s.deps.Log.Decide(ctx, ss.term, all)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range batch {
		d := ss.dockets[r.t]
		if d == nil {
			continue // gone meanwhile
		}
		if err != nil {
			ss.touch(r.t)
			continue
		}
		d.damper = r.damper
		s.metrics.decided(r)
	}
	if err != nil && ctx.Err() == nil {
		s.log.Warn("check transitions not written", "count", len(batch), "term", ss.term, "err", err)
	}
	return err == nil
}

// tally is what a leader's metrics show.
type tally struct{ up, down, unknown, contested, held int }

// count counts the checks and tells of instances that the expiry governor holds
// and that are dead.
func (s *Supervisor) count(ss *session) {
	var n tally
	var dead []*muster.Instance
	s.mu.Lock()
	for _, t := range s.roster {
		n.add(t.inst)
		if t.inst.Suspect && muster.WorstCheck(t.inst.Checks) == muster.StatusDown {
			dead = append(dead, t.inst)
		}
	}
	s.mu.Unlock()
	if ss.ctx.Err() != nil {
		return
	}
	s.metrics.leads(&n)
	if len(dead) > 0 && s.deps.Dead != nil {
		s.deps.Dead(dead)
	}
}

func (n *tally) add(i *muster.Instance) {
	if !i.HeldUntil.IsZero() {
		n.held++
	}
	for _, c := range i.Checks {
		switch c.Status {
		case muster.StatusUp:
			n.up++
		case muster.StatusDown:
			n.down++
		default:
			n.unknown++
		}
		if c.Contested {
			n.contested++
		}
	}
}
