package health

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
)

// metrics are the room's collectors.
type metrics struct {
	probes      *prometheus.CounterVec   // type, result
	probeTime   *prometheus.HistogramVec // type
	late        prometheus.Histogram
	inFlight    prometheus.Gauge
	owned       prometheus.Gauge
	delayed     prometheus.Counter
	reports     *prometheus.CounterVec // outcome
	transitions *prometheus.CounterVec // status
	contests    prometheus.Counter
	holds       prometheus.Counter
	checks      *prometheus.GaugeVec // status
	contested   prometheus.Gauge
	held        prometheus.Gauge
	conflicts   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_health_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_health_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "muster_health_" + name, Help: help})
	}
	seconds := prometheus.ExponentialBuckets(0.0005, 2.5, 11)
	m := &metrics{
		probes:      counters("probes_total", "Probes made by this node, by type of check and result (passed, skipped, or the cause of the failure).", "type", "result"),
		probeTime:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "muster_health_probe_seconds", Help: "How long probes took, by type of check.", Buckets: seconds}, []string{"type"}),
		late:        prometheus.NewHistogram(prometheus.HistogramOpts{Name: "muster_health_lateness_seconds", Help: "From when a probe was due to its start.", Buckets: seconds}),
		inFlight:    gauge("in_flight_probes", "Probes in flight on this node."),
		owned:       gauge("owned_checks", "Checks this node probes."),
		delayed:     counter("delayed_probes_total", "Probes that were put off because their target address was asked often enough."),
		reports:     counters("reports_total", "Reports of this node to the leader, by outcome.", "outcome"),
		transitions: counters("transitions_total", "Instances this node decided about as leader, by the status that their checks gave them.", "status"),
		contests:    counter("contests_total", "Checks about which their two nodes came to disagree, as decided by this node as leader."),
		holds:       counter("holds_total", "Decisions of this node as leader that hold an instance out because it changes too often."),
		checks:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "muster_health_checks", Help: "Checks by status; only on the leader."}, []string{"status"}),
		contested:   gauge("contested_checks", "Checks about which their two nodes disagree; 0 on a node that does not lead."),
		held:        gauge("held_instances", "Instances held out because they change too often; 0 on a node that does not lead."),
		conflicts:   gauge("address_conflicts", "Instances of different services on one address and port; 0 on a node that does not lead."),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.probes, m.probeTime, m.late, m.inFlight, m.owned, m.delayed, m.reports, m.transitions, m.contests, m.holds,
		m.checks, m.contested, m.held, m.conflicts,
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering health metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) probed(t muster.CheckType, r *Result) {
	result := string(r.Cause)
	switch {
	case r.Skipped:
		result = "skipped"
	case r.Passed:
		result = "passed"
	}
	if kindOf(t) == nil {
		t = "unknown"
	}
	m.probes.WithLabelValues(string(t), result).Inc()
	if !r.Skipped {
		m.probeTime.WithLabelValues(string(t)).Observe(r.Latency.Seconds())
	}
}

// decided notes a ruling that was applied.
func (m *metrics) decided(r *ruling) {
	after := make([]muster.Check, len(r.Checks))
	for n := range after {
		after[n].CheckState = r.Checks[n]
	}
	m.transitions.WithLabelValues(string(muster.WorstCheck(after))).Inc()
	if r.contests {
		m.contests.Inc()
	}
	if !r.HeldUntil.IsZero() {
		m.holds.Inc()
	}
}

// leads shows what a leader counts; nil: this node does not lead any more.
func (m *metrics) leads(n *tally) {
	if n == nil {
		m.checks.Reset()
		m.conflicts.Set(0)
		n = &tally{}
	} else {
		for status, count := range map[muster.Status]int{muster.StatusUp: n.up, muster.StatusDown: n.down, muster.StatusUnknown: n.unknown} {
			m.checks.WithLabelValues(string(status)).Set(float64(count))
		}
	}
	m.contested.Set(float64(n.contested))
	m.held.Set(float64(n.held))
}
