package balancer

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// What a pick came to.
const (
	resultPicked = iota
	resultPanic
	resultNone
	numResults
)

var resultNames = [numResults]string{"picked", "panic", "none"}

// ejectionCauses are the causes by which a breaker opens, for metrics and logs.
var ejectionCauses = map[change]string{
	trippedRow: "consecutive", trippedRate: "failure_rate", trippedTrial: "half_open", trippedShared: "shared",
}

// What became of tickets that were not reported.
const (
	lostExpired = iota
	lostEvicted
)

// metrics are what a Balancer counts. No label grows with services or instances.
// The children that picks count are looked up beforehand.
type metrics struct {
	picks       [][numResults]prometheus.Counter // by the strategy's place
	ejections   map[change]prometheus.Counter
	ticketsLost [2]prometheus.Counter
	outcomes    [2]prometheus.Counter // successes, failures
	pools       prometheus.Counter
	sent        prometheus.Counter
	received    prometheus.Counter
	refused     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, b *Balancer) (*metrics, error) {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_balancer_" + name, Help: help}, labels)
	}
	picks := vec("picks_total", "Picks by strategy and by what they came to.", "strategy", "result")
	ejections := vec("ejections_total", "Instances ejected, by cause.", "cause")
	lost := vec("tickets_lost_total", "Tickets that ended without a report.", "reason")
	outcomes := vec("outcomes_total", "Outcomes reported to this node.", "outcome")
	packets := vec("packets_total", "Packets exchanged with other nodes.", "direction")
	pools := vec("pools_total", "Pools built from views.")
	m := &metrics{
		ejections:   map[change]prometheus.Counter{},
		ticketsLost: [2]prometheus.Counter{lost.WithLabelValues("expired"), lost.WithLabelValues("evicted")},
		outcomes:    [2]prometheus.Counter{outcomes.WithLabelValues("success"), outcomes.WithLabelValues("failure")},
		pools:       pools.WithLabelValues(),
		sent:        packets.WithLabelValues("sent"),
		received:    packets.WithLabelValues("received"),
		refused:     packets.WithLabelValues("refused"),
	}
	for _, s := range table {
		var row [numResults]prometheus.Counter
		for n, result := range resultNames {
			row[n] = picks.WithLabelValues(s.Name(), result)
		}
		m.picks = append(m.picks, row)
	}
	for ch, cause := range ejectionCauses {
		m.ejections[ch] = ejections.WithLabelValues(cause)
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_balancer_" + name, Help: help}, func() float64 { return float64(value()) })
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		picks, ejections, lost, outcomes, packets, pools,
		gauge("tickets", "Tickets that wait for their report.", b.tickets.waiting),
		gauge("ejected_instances", "Instances whose breaker is open or half-open here.", b.ejected),
		gauge("known_instances", "Instances of which something is known.", func() int { return int(b.records.Load()) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering the balancer's metrics: %w", err)
		}
	}
	return m, nil
}

// ejected is how many breakers are not closed.
func (b *Balancer) ejected() int {
	n := 0
	for _, s := range b.all() {
		s.mu.Lock()
		n += len(s.open)
		s.mu.Unlock()
	}
	return n
}
