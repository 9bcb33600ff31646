package fsm

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
)

// metrics are the room's collectors. The counters count what this process has
// applied, the replay of its log at the start included.
type metrics struct {
	entries      prometheus.Counter
	operations   *prometheus.CounterVec
	transitions  *prometheus.CounterVec
	services     prometheus.Gauge
	configured   prometheus.Gauge
	instances    *prometheus.GaugeVec
	leases       *prometheus.GaugeVec
	journal      prometheus.Gauge
	tombstones   *prometheus.GaugeVec
	epoch        prometheus.Gauge
	applied      prometheus.Gauge
	level        prometheus.Gauge
	staged       prometheus.Gauge
	snapshotSize prometheus.Gauge
	resets       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "muster", Subsystem: "fsm", Name: name, Help: help}
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "muster", Subsystem: "fsm", Name: name, Help: help}
	}
	m := &metrics{
		entries:      prometheus.NewCounter(counter("applied_entries_total", "Log entries applied.")),
		operations:   prometheus.NewCounterVec(counter("operations_total", "Operations applied, by kind and result (ok, unchanged, dropped or the code of the rejection)."), []string{"kind", "result"}),
		transitions:  prometheus.NewCounterVec(counter("transitions_total", "Transitions of instances and settings, by cause."), []string{"cause"}),
		services:     prometheus.NewGauge(gauge("services", "Services that have instances.")),
		configured:   prometheus.NewGauge(gauge("configured_services", "Services that have settings of their own.")),
		instances:    prometheus.NewGaugeVec(gauge("instances", "Instances, by status."), []string{"status"}),
		leases:       prometheus.NewGaugeVec(gauge("leases", "Leases, by scope (own of an instance, or shared)."), []string{"scope"}),
		journal:      prometheus.NewGauge(gauge("journal_events", "Transitions kept in the journal.")),
		tombstones:   prometheus.NewGaugeVec(gauge("tombstones", "What is remembered after it is gone, by what."), []string{"of"}),
		epoch:        prometheus.NewGauge(gauge("epoch", "Restores that raised the index.")),
		applied:      prometheus.NewGauge(gauge("applied_index", "Raft index of the last entry applied.")),
		level:        prometheus.NewGauge(gauge("feature_level", "The cluster's feature level: it is raised once all nodes are of a version that knows the higher one.")),
		staged:       prometheus.NewGauge(gauge("restore_staged_bytes", "Bytes of a backup that wait for their commit.")),
		snapshotSize: prometheus.NewGauge(gauge("snapshot_bytes", "Size of the last snapshot written.")),
		resets:       prometheus.NewCounter(counter("resets_total", "Times the whole state was replaced by a restore or a snapshot.")),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.entries, m.operations, m.transitions, m.services, m.configured, m.instances, m.leases, m.journal, m.tombstones,
		m.epoch, m.applied, m.level, m.staged, m.snapshotSize, m.resets,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// registerGauges registers what is counted when it is asked for.
func (f *FSM) registerGauges(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	return reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "muster", Subsystem: "fsm", Name: "unroutable_services", Help: "Services that have instances, none of which is routable.",
	}, func() float64 {
		n := 0
		for _, p := range f.dir.Load().published() {
			if len(p.view.Instances) > 0 && p.routable == 0 {
				n++
			}
		}
		return float64(n)
	}))
}

// kindNames are the labels of the operations.
var kindNames = map[kind]string{
	kindRegister: "register", kindDeregister: "deregister", kindExpire: "expire", kindSuspect: "suspect", kindRelease: "release",
	kindReap: "reap", kindSetOverride: "set_override", kindClearOverride: "clear_override", kindGrantLease: "grant_lease",
	kindRevokeLease: "revoke_lease", kindEpoch: "epoch", kindMember: "member", kindRestoreBegin: "restore_begin",
	kindRestoreChunk: "restore_chunk", kindRestoreCommit: "restore_commit", kindRestoreAbort: "restore_abort", kindRefused: "refused",
	kindConfigure: "configure", kindSwitchGovernor: "switch_governor", kindJudge: "judge",
	kindRaise: "raise",
}

// tally counts what a batch did, to be added to the metrics once.
type tally struct {
	operations  map[operationLabel]int
	transitions map[muster.Cause]int
	entries     int
	resets      int
}

type operationLabel struct {
	kind   kind
	result string
}

func (t *tally) operation(k kind, r *result) {
	if t.operations == nil {
		t.operations = make(map[operationLabel]int)
	}
	label := operationLabel{k, "ok"}
	switch {
	case r.err != nil:
		label.result = string(r.err.Code)
	case r.dropped:
		label.result = "dropped"
	case !r.changed && !r.epoch:
		label.result = "unchanged"
	}
	t.operations[label]++
}

func (t *tally) transition(c muster.Cause) {
	if t.transitions == nil {
		t.transitions = make(map[muster.Cause]int)
	}
	t.transitions[c]++
}

// update adds what a batch did and shows what the state holds.
func (m *metrics) update(s *state) {
	t := s.out.tally
	m.entries.Add(float64(t.entries))
	m.resets.Add(float64(t.resets))
	for l, n := range t.operations {
		name := kindNames[l.kind]
		if name == "" {
			name = "ignored"
		}
		m.operations.WithLabelValues(name, l.result).Add(float64(n))
	}
	for c, n := range t.transitions {
		m.transitions.WithLabelValues(string(c)).Add(float64(n))
	}
	clear(t.operations)
	clear(t.transitions)
	t.entries, t.resets = 0, 0

	m.services.Set(float64(s.live))
	m.configured.Set(float64(len(s.settings)))
	for n, st := range statusNames {
		m.instances.WithLabelValues(string(st)).Set(float64(s.counts[n]))
	}
	m.leases.WithLabelValues("own").Set(float64(s.leases.len() - s.leases.shared))
	m.leases.WithLabelValues("shared").Set(float64(s.leases.shared))
	m.journal.Set(float64(len(s.journal.latest())))
	m.tombstones.WithLabelValues("service").Set(float64(s.gone.n))
	m.tombstones.WithLabelValues("instance").Set(float64(s.tombs.order.n))
	m.epoch.Set(float64(s.epoch))
	m.applied.Set(float64(s.applied))
	m.level.Set(float64(s.level))
	m.staged.Set(float64(s.staging.size()))
}
