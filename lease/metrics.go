package lease

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the room's collectors.
type metrics struct {
	beats      *prometheus.CounterVec // outcome
	shed       prometheus.Counter
	rounds     *prometheus.CounterVec // outcome
	roundTime  prometheus.Histogram
	roundIDs   prometheus.Histogram
	skipped    prometheus.Counter
	decisions  *prometheus.CounterVec // kind, outcome
	expired    prometheus.Counter
	lateness   prometheus.Histogram
	suspect    prometheus.Gauge
	governor   prometheus.Gauge
	held       prometheus.Counter
	gathers    *prometheus.CounterVec // outcome
	gatherTime prometheus.Histogram
	outageTime prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, k *Keeper) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_lease_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_lease_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "muster_lease_" + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "muster_lease_" + name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		beats:      counters("renewals_total", "Heartbeats taken by this node, by outcome.", "outcome"),
		shed:       counter("renewals_shed_total", "Heartbeats refused by this node because of overload."),
		rounds:     counters("rounds_total", "Rounds of renewal this node led, by outcome.", "outcome"),
		roundTime:  histogram("round_seconds", "How long a round of renewal took to its majority.", prometheus.ExponentialBuckets(0.0001, 2.5, 11)),
		roundIDs:   histogram("round_renewals", "Renewals per round.", prometheus.ExponentialBuckets(1, 4, 9)),
		skipped:    counter("round_skips_total", "Voters left out of a round because they did not answer earlier ones."),
		decisions:  counters("decisions_total", "Decisions this node proposed as leader, by kind and outcome.", "kind", "outcome"),
		expired:    counter("expirations_total", "Leases this node ended as leader because they ran out."),
		lateness:   histogram("lateness_seconds", "From the end of a lease's TTL to its removal.", []float64{.025, .05, .1, .15, .2, .3, .5, 1, 2, 5, 15, 60}),
		suspect:    gauge("suspect", "Leases the governor holds; 0 on a node that does not lead."),
		governor:   gauge("governor_active", "1 while the governor holds leases; 0 on a node that does not lead."),
		held:       counter("held_total", "Leases the governor has held."),
		gathers:    counters("gathers_total", "Take-overs by this node as new leader: majority, partial or full_ttl.", "outcome"),
		gatherTime: histogram("gather_seconds", "How long a take-over took.", []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}),
		outageTime: gauge("outage_seconds", "Outage that was taken out at this node's last take-over."),
	}
	if reg == nil {
		return m, nil
	}
	live := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_lease_live", Help: "Leases in this node's table."},
		func() float64 { return float64(k.table.Len()) })
	stalls := prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_lease_stalls_total", Help: "Stalls of this node that its table has settled."},
		func() float64 { return float64(k.table.Stalls()) })
	for _, c := range []prometheus.Collector{
		m.beats, m.shed, m.rounds, m.roundTime, m.roundIDs, m.skipped, m.decisions, m.expired, m.lateness,
		m.suspect, m.governor, m.held, m.gathers, m.gatherTime, m.outageTime, live, stalls,
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering lease metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) round(ids int, took time.Duration, err error) {
	if err != nil {
		m.rounds.WithLabelValues("failed").Inc()
		return
	}
	m.rounds.WithLabelValues("majority").Inc()
	m.roundTime.Observe(took.Seconds())
	m.roundIDs.Observe(float64(ids))
}

// decided notes a decision that was settled: late is how late each lease ended
// that it ended.
func (m *metrics) decided(f *flight, late []time.Duration, err error) {
	if err != nil {
		m.decisions.WithLabelValues(f.Kind.String(), "failed").Inc()
		return
	}
	m.decisions.WithLabelValues(f.Kind.String(), "applied").Inc()
	if f.Kind == Suspect {
		m.held.Add(float64(len(f.recs)))
	}
	m.expired.Add(float64(len(late)))
	if f.Kind == Expire { // those let go were late on purpose
		for _, d := range late {
			m.lateness.Observe(d.Seconds())
		}
	}
}

func (m *metrics) gathered(kept, full int, took, outage time.Duration) {
	outcome := "partial"
	switch {
	case full == 0:
		outcome = "majority"
	case kept == 0:
		outcome = "full_ttl"
	}
	m.gathers.WithLabelValues(outcome).Inc()
	m.gatherTime.Observe(took.Seconds())
	m.outageTime.Set(outage.Seconds())
}
