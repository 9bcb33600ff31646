package watch

import (
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the room's collectors.
type metrics struct {
	wakes       prometheus.Counter
	spurious    prometheus.Counter
	coalesced   prometheus.Counter
	encodings   prometheus.Counter
	resyncs     prometheus.Counter
	propagation prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, h *Hub) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_watch_" + name, Help: help})
	}
	m := &metrics{
		wakes:     counter("wakes_total", "How often a waiting stream was woken."),
		spurious:  counter("spurious_wakes_total", "Wakes after which the stream had nothing to tell."),
		coalesced: counter("coalesced_wakes_total", "Wakes of a service's or a prefix's streams that were put off because the last one was too recent."),
		encodings: counter("encodings_total", "Changes of a service that were encoded; once each, however many streams they go to."),
		resyncs:   counter("resyncs_total", "How often a stream was given full views because changes could no longer be told."),
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_watch_propagation_seconds", Help: "From the moment a change was applied on this node until a stream took it.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .075, .1, .25, 1, 10},
		}),
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, mu sync.Locker, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_watch_" + name, Help: help}, func() float64 {
			mu.Lock()
			defer mu.Unlock()
			return value()
		})
	}
	for _, c := range []prometheus.Collector{
		m.wakes, m.spurious, m.coalesced, m.encodings, m.resyncs, m.propagation,
		gauge("watchers", "Streams that are open.", &h.seats, func() float64 { return float64(len(h.streams)) }),
		gauge("ring_events", "Events in the ring.", h.mu.RLocker(), func() float64 { return float64(h.ring.events) }),
		gauge("ring_bytes", "What the events in the ring take when encoded.", h.mu.RLocker(), func() float64 { return float64(h.ring.bytes) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering watch metrics: %w", err)
		}
	}
	return m, nil
}
