package peer

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	conns   *prometheus.GaugeVec
	bytes   *prometheus.CounterVec
	refused *prometheus.CounterVec
	served  *prometheus.HistogramVec
	called  *prometheus.HistogramVec
	panics  prometheus.Counter
}

// The values of the label "outcome" of calls.
const (
	outcomeOK      = "ok"
	outcomeError   = "error"    // the handler answered with an error
	outcomeNotSent = "not_sent" // certainly not carried out
	outcomeLost    = "lost"     // sent, and no answer
)

func newMetrics() *metrics {
	latency := prometheus.ExponentialBuckets(0.0001, 2, 16)
	return &metrics{
		conns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "muster_peer_connections",
			Help: "Open peer connections, by kind and by who dialled.",
		}, []string{"kind", "direction"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_peer_bytes_total",
			Help: "Bytes carried by peer connections after their handshake.",
		}, []string{"kind", "direction"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_peer_handshakes_refused_total",
			Help: "Peer connections that ended in their handshake, by who dialled and why.",
		}, []string{"direction", "code"}),
		served: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "muster_peer_served_seconds",
			Help:    "Time to serve an internal call, by method and outcome.",
			Buckets: latency,
		}, []string{"method", "outcome"}),
		called: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "muster_peer_call_seconds",
			Help:    "Time an internal call to a peer took, by method and outcome.",
			Buckets: latency,
		}, []string{"method", "outcome"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_peer_handler_panics_total",
			Help: "Panics of handlers of internal calls.",
		}),
	}
}

// register adds the metrics to reg, which may be nil.
func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.conns, m.bytes, m.refused, m.served, m.called, m.panics} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("registering the metrics of the peer port: %w", err)
	}
	return nil
}
