package balancer

import (
	"log/slog"
	"time"

	"github.com/muster-registry/muster"
)

// Outcome is what became of one request.
type Outcome struct {
	// Failed says that the instance failed it. What the caller did wrong or gave up
	// is no failure of the instance.
	Failed bool
	// Latency is how long it took; 0: not told.
	Latency time.Duration
}

func (o Outcome) tally() tally {
	if o.Failed {
		return tally{failures: 1, latency: o.Latency}
	}
	return tally{successes: 1, latency: o.Latency}
}

// Outcomes is what became of several requests to one instance.
type Outcomes struct {
	Successes, Failures uint64
	// Latency is that of one of them, or their average; 0: not told.
	Latency time.Duration
}

// MaxOutcomes bounds the outcomes of one report.
const MaxOutcomes = 1_000_000

// Done reports what became of a choice that Start made, and ends it. Each such
// choice is to be given once to one of Done, Drop and Ticket; what became of a
// choice that Pick made is for Report.
func (b *Balancer) Done(now time.Time, c Choice, o Outcome) {
	at := b.moment(now)
	if c.rec == nil {
		return
	}
	c.rec.end()
	b.learn(c.rec, o.tally(), at)
	b.sweep(at)
}

// Drop ends a choice that Start made and of which nothing can be said: the caller
// gave up, or never sent it.
func (b *Balancer) Drop(c Choice) {
	if c.rec != nil {
		c.rec.end()
	}
}

// Report takes in outcomes of an instance that v shows. The error is
// unknown_instance, or conflicting_field where there are none or too many.
func (b *Balancer) Report(now time.Time, v *muster.View, id string, o Outcomes) error {
	at := b.moment(now)
	i := v.Find(id)
	switch {
	case i == nil:
		return muster.Errorf(muster.CodeUnknownInstance, "service %s has no instance %q", v.Service, id)
	case o.Successes+o.Failures == 0 || o.Successes > MaxOutcomes || o.Failures > MaxOutcomes:
		return muster.Errorf(muster.CodeConflictingField, "a report holds from one outcome to %d successes and %d failures", MaxOutcomes, MaxOutcomes)
	}
	svc := b.service(v.Key(), nil, at)
	svc.follow(v, settingsOf(v))
	b.learn(svc.record(i, v.Index), tally{o.Successes, o.Failures, o.Latency}, at)
	b.sweep(at)
	return nil
}

// learn takes in what this node heard of an instance.
func (b *Balancer) learn(r *record, t tally, at moment) {
	b.metrics.outcomes[0].Add(float64(t.successes))
	b.metrics.outcomes[1].Add(float64(t.failures))
	r.mu.Lock()
	ch := r.hear(t, at)
	r.unsent = r.unsent.plus(t)
	b.line(r, ch)
	r.mu.Unlock()
	b.after(r, ch)
}

// hear takes outcomes in. The caller holds r's lock.
func (r *record) hear(t tally, at moment) change {
	r.touched = at
	r.total = r.total.plus(t)
	r.word.observe(t, at)
	return r.breaker.learn(t, r.svc.settings.Load(), at)
}

// after does what a change of r's breaker asks for.
func (b *Balancer) after(r *record, ch change) {
	if ch == unchanged {
		return
	}
	r.svc.settle(r)
	r.mu.Lock()
	k := r.breaker
	r.mu.Unlock()
	instance := slog.String("instance", muster.InstanceKey{Namespace: r.svc.key.Namespace, Service: r.svc.key.Service, ID: r.id}.String())
	if ch == closed {
		b.cfg.Logger.Info("instance readmitted", instance)
		return
	}
	b.metrics.ejections[ch].Inc()
	b.cfg.Logger.Info("instance ejected", instance, slog.String("cause", ejectionCauses[ch]),
		slog.Duration("duration", k.length), slog.Int("strikes", k.strikes))
}

func (t tally) plus(o tally) tally {
	return tally{t.successes + o.successes, t.failures + o.failures, max(t.latency, o.latency)}
}

// The sweep: what nobody heard of for forgetAfter and the newest view does not show
// is forgotten, and everything else after forgetAll.
const (
	sweepEvery  = time.Minute
	forgetAfter = 10 * time.Minute
	forgetAll   = time.Hour
)

// sweep forgets, once in a while, what is no longer of use.
func (b *Balancer) sweep(at moment) {
	next := b.sweepAt.Load()
	if int64(at) < next || !b.sweepAt.CompareAndSwap(next, int64(at.add(sweepEvery))) {
		return
	}
	for _, s := range b.all() {
		newest := s.index.Load()
		gone := s.sweep(at, func(r *record) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			idle := time.Duration(at - r.touched)
			if idle > forgetAfter {
				r.word.forget() // before its ticks come round
			}
			return r.word.inflight() == 0 && r.breaker.state == Closed && !r.queued &&
				(idle > forgetAll || idle > forgetAfter && r.view < newest)
		})
		if gone {
			b.mu.Lock()
			if b.services[s.key] == s {
				delete(b.services, s.key)
			}
			b.mu.Unlock()
		}
	}
}
