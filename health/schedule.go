package health

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/muster-registry/muster"
)

// schedule is a heap of the probes that wait, the next one first.
type schedule []*probe

func (q schedule) Len() int           { return len(q) }
func (q schedule) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q schedule) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].slot, q[j].slot = i, j
}

// Push is heap.Push's.
func (q *schedule) Push(x any) {
	p := x.(*probe)
	p.slot = len(*q)
	*q = append(*q, p)
}

// Pop is heap.Pop's.
func (q *schedule) Pop() any {
	last := len(*q) - 1
	p := (*q)[last]
	(*q)[last] = nil
	*q, p.slot = (*q)[:last], -1
	return p
}

// push has p run at p.at.
func (s *Supervisor) push(p *probe) {
	heap.Push(&s.queue, p)
	if p.slot == 0 {
		poke(s.due)
	}
}

// idle is how long the loop sleeps at most.
const idle = time.Minute

// probeLoop starts probes when they are due. One goroutine watches the clock;
// others exist only while a probe is in flight.
func (s *Supervisor) probeLoop(ctx context.Context) {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	swept := time.Now()
	for ctx.Err() == nil {
		now := time.Now()
		s.mu.Lock()
		wait := s.dispatch(ctx, now)
		if now.Sub(swept) >= idle {
			swept = now
			s.sweepGates(now)
		}
		s.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.due:
		}
	}
}

// dispatch starts what is due and returns how long there is nothing more.
func (s *Supervisor) dispatch(ctx context.Context, now time.Time) time.Duration {
	spacing, most := s.share()
	for len(s.queue) > 0 {
		p := s.queue[0]
		if wait := p.at.Sub(now); wait > 0 {
			return min(wait, idle)
		}
		if s.inFlight >= s.cfg.MaxInFlight {
			return idle // whoever ends pokes
		}
		heap.Pop(&s.queue)
		if p.check().Type == muster.CheckService {
			s.start(ctx, p, nil, now)
			continue
		}
		g := s.gate(p.t.inst.Address)
		if !p.turn {
			p.turn = true
			if turn := g.reserve(now, spacing); turn.After(now) {
				s.metrics.delayed.Inc()
				p.at = turn
				heap.Push(&s.queue, p)
				continue
			}
		}
		if g.running >= most {
			g.waiting = append(g.waiting, p)
			continue
		}
		s.start(ctx, p, g, now)
	}
	return idle
}

// start makes a probe; g is nil where no address is asked.
func (s *Supervisor) start(ctx context.Context, p *probe, g *gate, now time.Time) {
	s.inFlight++
	s.metrics.inFlight.Set(float64(s.inFlight))
	s.metrics.late.Observe(now.Sub(p.at).Seconds())
	if g != nil {
		g.running++
	}
	p.running = true
	adm := &admission{s: s}
	a := &attempt{inst: p.t.inst, check: p.check(), guard: s.deps.Guard, routable: s.deps.State.Routable}
	address := p.t.inst.Address
	if _, err := netip.ParseAddr(address); err != nil {
		a.admit = adm.admit
	}
	s.probing.Go(func() {
		r := a.run(ctx)
		s.metrics.probed(a.check.Type, &r)
		s.mu.Lock()
		defer s.mu.Unlock()
		now := time.Now()
		s.inFlight--
		s.metrics.inFlight.Set(float64(s.inFlight))
		adm.leave(now)
		if g != nil {
			s.handOver(ctx, g, now)
			s.leave(address, g, now)
		}
		s.finish(p, &r, now)
		if s.inFlight == s.cfg.MaxInFlight-1 {
			poke(s.due)
		}
	})
}

// handOver gives the place of a probe that has ended to the next of its target
// address.
func (s *Supervisor) handOver(ctx context.Context, g *gate, now time.Time) {
	for len(g.waiting) > 0 && ctx.Err() == nil {
		next := g.waiting[0]
		g.waiting = g.waiting[1:]
		if !next.gone {
			s.start(ctx, next, g, now)
			return
		}
	}
}

// jitter is by how much an interval is shortened at most: checks that fell into
// step drift apart, and none is found out later than its interval promises.
const jitter = 0.05

// finish takes the result of a probe and has the next one run.
func (s *Supervisor) finish(p *probe, r *Result, now time.Time) {
	p.running, p.turn = false, false
	if p.gone {
		return
	}
	s.take(p, r)
	interval := float64(p.check().Interval)
	if p.first { // made early, with all that began then: from here on spread evenly
		p.first = false
		interval *= rand.Float64()
	} else {
		interval *= 1 - jitter*rand.Float64()
	}
	if p.at = p.at.Add(time.Duration(interval)); p.at.Before(now) {
		p.at = now
	}
	s.push(p)
}

// take makes an opinion of a result.
func (s *Supervisor) take(p *probe, r *Result) {
	if r.Skipped {
		return
	}
	turned := p.machine.Observe(r.Passed)
	p.last = *r
	agrees := r.Passed == (p.machine.State == muster.StatusUp) && p.machine.State != muster.StatusUnknown
	if turned || agrees && !p.vouched {
		p.vouched = true
		p.spoken++
		s.dirty[p] = struct{}{}
		poke(s.news)
	}
}
