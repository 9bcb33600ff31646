package httpapi

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the room's own. Labels are route templates, the methods of the
// table and classes of statuses: nothing a client sends makes a new one.
type metrics struct {
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	polls    prometheus.Gauge
	panics   prometheus.Counter

	gates       [numClasses]*gate
	connections prometheus.Gauge
	turnedAway  prometheus.Counter

	other routeMeter // for what matches no route
}

// routeMeter is one route's share of the metrics, looked up once.
type routeMeter struct {
	classes [6]prometheus.Counter // by the first digit of the status
	latency prometheus.Observer
}

// unmatched stands in the labels for what matches no route.
const unmatched = "none"

func newMetrics(reg prometheus.Registerer, routes []*route) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_httpapi_requests_total",
			Help: "Requests answered, by route, method and class of status. Requests that match no route have route none.",
		}, []string{"route", "method", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "muster_httpapi_request_seconds",
			Help:    "Time from the head of a request to the end of its answer. Reads that carry a cursor (?index=) are left out: they wait on purpose.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_httpapi_in_flight_requests", Help: "Requests that are being answered, waiting long polls among them.",
		}),
		polls: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_httpapi_waiting_polls", Help: "Long polls that wait for a change.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_httpapi_panics_total", Help: "Requests whose handler panicked. Each is a defect; the log has its stack.",
		}),
	}
	inWork := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "muster_httpapi_in_work_requests",
		Help: "Requests that are being worked on, by class: long polls that wait, streams and answers that are only being written are not.",
	}, []string{"class"})
	sheds := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_httpapi_shed_total", Help: "Requests refused as overloaded because their class had no room, by class.",
	}, []string{"class"})
	for c := classVital; c < numClasses; c++ {
		m.gates[c] = &gate{room: roomOf(c), inWork: inWork.WithLabelValues(c.String()), shed: sheds.WithLabelValues(c.String())}
	}
	m.connections = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "muster_httpapi_connections", Help: "Connections of clients that are open, streams among them.",
	})
	m.turnedAway = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_httpapi_connections_refused_total", Help: "Connections closed at once because their address, or all together, had too many.",
	})
	slow := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_httpapi_slow_bodies", Help: "Requests whose bodies come so slowly that they have lost their place.",
	}, func() (sum float64) {
		for c := classVital; c < numClasses; c++ {
			sum += float64(m.gates[c].slow.open.Load())
		}
		return sum
	})
	m.other = m.meter(unmatched, unmatched)
	for _, r := range routes {
		r.meter = m.meter(r.path, r.method)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.latency, m.inFlight, m.polls, m.panics, inWork, sheds, m.connections, m.turnedAway, slow} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("httpapi: registering metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) meter(path, method string) routeMeter {
	var r routeMeter
	for _, class := range []int{2, 3, 4, 5} {
		r.classes[class] = m.requests.WithLabelValues(path, method, fmt.Sprintf("%dxx", class))
	}
	r.latency = m.latency.WithLabelValues(path, method)
	return r
}

// answered counts one answer.
func (m *metrics) answered(c *call, took time.Duration) {
	meter := &m.other
	if c.route != nil {
		meter = &c.route.meter
	}
	if class := c.status / 100; class >= 2 && class <= 5 {
		meter.classes[class].Inc()
	}
	if !c.waited {
		meter.latency.Observe(took.Seconds())
	}
}

// refused counts an answer to a request that no handler saw.
func (m *metrics) refused(status int) {
	if class := status / 100; class == http.StatusBadRequest/100 || class == http.StatusInternalServerError/100 {
		m.other.classes[class].Inc()
	}
}
