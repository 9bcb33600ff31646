package node

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a node shows beside what its rooms do: the build, the disk, the
// backups it writes by itself, the certificate of its API port.
type metrics struct {
	lastBackup     prometheus.Gauge
	backupFailures prometheus.Counter
	reloadFailures prometheus.Counter
}

// newMetrics makes the collectors of a node of that version with its data in dir.
func newMetrics(reg prometheus.Registerer, version, dir string) (*metrics, error) {
	if version == "" {
		version = "unknown"
	}
	m := &metrics{
		lastBackup: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_node_backup_last_success_timestamp_seconds", Help: "When this node last wrote a backup by itself; 0: not since it started.",
		}),
		backupFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_node_backup_failures_total", Help: "Backups that this node could not write.",
		}),
		reloadFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_node_tls_reload_failures_total", Help: "Times the certificate of the API port had changed and could not be read.",
		}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "muster_node_build_info", Help: "Always 1; the labels say what is running.",
	}, []string{"version", "go_version"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	disk := func(name, help string, of func(space) uint64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s, err := diskSpace(dir)
			if err != nil {
				return -1
			}
			return float64(of(s))
		})
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.lastBackup, m.backupFailures, m.reloadFailures, build,
		disk("muster_node_disk_free_bytes", "What this node may still write to the file system of its data directory; -1: cannot be told.", func(s space) uint64 { return s.free }),
		disk("muster_node_disk_size_bytes", "Size of the file system of the data directory; -1: cannot be told.", func(s space) uint64 { return s.size }),
	} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("registering the metrics of the node: %w", err)
	}
	return m, nil
}

// certificateExpiry shows when c expires; c may be nil.
func certificateExpiry(reg prometheus.Registerer, c *certificate) error {
	return reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_node_tls_certificate_expiry_timestamp_seconds", Help: "When the certificate of the API port expires; 0: there is none.",
	}, func() float64 {
		if c == nil {
			return 0
		}
		return float64(c.current().Leaf.NotAfter.Unix())
	}))
}
