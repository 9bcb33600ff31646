package logstore

import (
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
)

// The kinds of writes, as they appear in the metrics and in errors.
const (
	opAppend = "append"
	opDelete = "delete"
	opStable = "stable"
)

type metrics struct {
	write    *prometheus.HistogramVec
	appended prometheus.Counter
	corrupt  prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		write: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "muster_logstore_write_seconds",
			Help:    "Time to write and fsync to the raft log file, by kind of write.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16),
		}, []string{"op"}),
		appended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_logstore_appended_entries_total",
			Help: "Entries appended to the raft log.",
		}),
		corrupt: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_logstore_corruptions_total",
			Help: "Damage found in the raft log file.",
		}),
	}
	for _, op := range []string{opAppend, opDelete, opStable} {
		m.write.WithLabelValues(op)
	}
	return m
}

// register adds the metrics of s to reg, which may be nil.
func (m *metrics) register(reg prometheus.Registerer, s *Store) error {
	if reg == nil {
		return nil
	}
	gauges := []prometheus.Collector{
		gauge("muster_logstore_entries", "Entries in the raft log.", s.entries),
		gauge("muster_logstore_file_bytes", "Size of the raft log file.", s.fileBytes),
		gauge("muster_logstore_write_running_seconds", "How long the oldest unfinished write has been running.",
			func() float64 { return s.Hung().Seconds() }),
	}
	var errs []error
	for _, c := range append(gauges, m.write, m.appended, m.corrupt) {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("registering the metrics of the log store: %w", err)
	}
	return nil
}

func gauge(name, help string, fn func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, fn)
}

func (s *Store) entries() float64 {
	first, last := s.first.Load(), s.last.Load()
	if last == 0 {
		return 0
	}
	return float64(last - first + 1)
}

func (s *Store) fileBytes() float64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return float64(info.Size())
}
