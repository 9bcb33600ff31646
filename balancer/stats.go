package balancer

import (
	"time"

	"github.com/muster-registry/muster"
)

// Stats is what a Balancer knows of a service, for people: GET
// /v1/services/{service}?view=balancer.
type Stats struct {
	// Strategy is the service's own.
	Strategy string `json:"strategy"`
	Panic    bool   `json:"panic"`
	// Pickable is how many instances picks choose from.
	Pickable  int             `json:"pickable"`
	Ejected   int             `json:"ejected"`
	InFlight  int64           `json:"in_flight"`
	Instances []InstanceStats `json:"instances"`
}

// InstanceStats is what a Balancer knows of one instance. What no node reported an
// outcome of is all zeros, and closed.
type InstanceStats struct {
	ID string `json:"id"`
	// Pickable says that picks may choose it now.
	Pickable bool  `json:"pickable"`
	InFlight int64 `json:"in_flight"`
	// Latency is the moving average, as it was at the last measurement.
	Latency muster.Duration `json:"latency"`
	// Successes and Failures are all that were heard of, from other nodes too.
	Successes uint64 `json:"successes"`
	Failures  uint64 `json:"failures"`
	// FailureRate is the share of failures among the latest outcomes, in percent.
	FailureRate int   `json:"failure_rate"`
	State       State `json:"state"`
	// Ejected says that the instance is kept out; one whose breaker is open is not
	// where that would be more than the settings' MaxEjected.
	Ejected bool `json:"ejected"`
	// Until is when a breaker that is not closed leaves its state by itself.
	Until time.Time `json:"until,omitzero"`
	// Strikes is how many ejections followed one another.
	Strikes int `json:"strikes,omitempty"`
}

// Stats returns what is known of the instances of v, in v's order.
func (b *Balancer) Stats(now time.Time, v *muster.View) Stats {
	at := b.moment(now)
	p := v.Derive(b.deriveKey, b.newSeat).(*seat).pool(now, at)
	st := Stats{
		Strategy: p.strategy.Name(), Panic: p.panic, Pickable: int(p.all.n) + len(p.trials),
		InFlight: p.svc.inflight.Load(), Instances: make([]InstanceStats, len(v.Instances)),
	}
	stands := make(map[string]stand, len(p.roster.insts))
	for place, i := range p.roster.insts {
		stands[i.ID] = p.standing(int32(place))
	}
	for n, i := range v.Instances {
		s := &st.Instances[n]
		how, pickable := stands[i.ID]
		*s = InstanceStats{ID: i.ID, State: Closed, Pickable: pickable && how != out, Ejected: pickable && how == out}
		if s.Ejected {
			st.Ejected++
		}
		if r := p.svc.find(i.ID); r != nil {
			r.fill(s, now, at)
		}
	}
	return st
}

func (p *pool) standing(place int32) stand {
	if p.state == nil {
		return in
	}
	return p.state[place]
}

// fill writes what r knows into s.
func (r *record) fill(s *InstanceStats, now time.Time, at moment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.word.read(at)
	s.InFlight, s.Latency = w.inflight, muster.Duration(time.Duration(w.cost).Round(time.Microsecond))
	s.Successes, s.Failures = r.total.successes, r.total.failures
	k := &r.breaker
	s.State, s.FailureRate, s.Strikes = k.state, k.rate(), k.strikes
	if k.state != Closed {
		s.Until = now.Add(time.Duration(k.until - at)).UTC().Round(time.Millisecond)
	}
}
