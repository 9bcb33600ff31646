package cluster

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the room's collectors.
type metrics struct {
	leaderChanges prometheus.Counter
	commitSeconds prometheus.Histogram
	entryOps      prometheus.Histogram
	forwards      prometheus.Counter
	forwardOps    prometheus.Counter
	nudges        prometheus.Counter
	fastElections prometheus.Counter
	confirms      prometheus.Counter
	shed          *prometheus.CounterVec
	changes       prometheus.Counter

	snapshotFailures prometheus.Counter
}

// newMetrics makes the collectors, and registers them where there is a registerer.
func newMetrics(reg prometheus.Registerer, n *Node) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		leaderChanges: counter("muster_cluster_leader_changes_total", "How often this node has seen another leader than before."),
		forwards:      counter("muster_cluster_forwards_total", "Calls that passed operations on to the leader."),
		nudges:        counter("muster_cluster_commit_nudges_total", "Messages that told a follower at once what was committed."),
		fastElections: counter("muster_cluster_fast_elections_total", "Elections this node began because the leader's process was gone."),
		forwardOps:    counter("muster_cluster_forward_operations_total", "Operations passed on to the leader."),
		confirms:      counter("muster_cluster_confirm_rounds_total", "Rounds in which this node as leader asked the voters for their term."),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_cluster_shed_operations_total",
			Help: "Operations refused because too many were waiting, or had waited too long, by class: writes before what is vital.",
		}, []string{"class"}),
		snapshotFailures: counter("muster_cluster_snapshot_failures_total", "Snapshots that could not be written: raft's own, and those a leader sent."),
		changes:          counter("muster_cluster_membership_changes_total", "Changes of membership this node as leader set about."),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_cluster_commit_seconds", Help: "Time from giving an entry to raft until it was applied here.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}),
		entryOps: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_cluster_entry_operations", Help: "Operations packed into one log entry.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000},
		}),
	}
	for _, class := range []string{"vital", "write"} {
		m.shed.WithLabelValues(class) // shown from the start
	}
	if reg == nil {
		return m, nil
	}
	collectors := append(m.gauges(n), n.gossip.net.traffic.packets, n.gossip.net.traffic.bytes, m.leaderChanges, m.forwards, m.forwardOps, m.nudges, m.fastElections, m.confirms, m.shed, m.changes, m.snapshotFailures, m.commitSeconds, m.entryOps)
	for _, c := range collectors {
		if err := reg.Register(c); err != nil {
			return m, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// gauges read what the node knows at the moment they are asked.
func (m *metrics) gauges(n *Node) []prometheus.Collector {
	gauge := func(name, help string, fn func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, fn)
	}
	ofRaft := func(fn func(r *raft.Raft) float64) func() float64 {
		return func() float64 {
			if r := n.raft.Load(); r != nil {
				return fn(r)
			}
			return 0
		}
	}
	return []prometheus.Collector{
		gauge("muster_cluster_leading", "1 while this node has an open session as leader.", func() float64 {
			if n.session.Load() != nil {
				return 1
			}
			return 0
		}),
		gauge("muster_cluster_leader_known", "1 while this node knows a leader.", func() float64 {
			if id, _ := n.raftLeader(); id != "" {
				return 1
			}
			return 0
		}),
		gauge("muster_cluster_term", "The raft term.", func() float64 { return float64(n.CurrentTerm()) }),
		gauge("muster_cluster_commit_index", "The raft index up to which entries are committed.",
			ofRaft(func(r *raft.Raft) float64 { return float64(r.CommitIndex()) })),
		gauge("muster_cluster_applied_index", "The raft index up to which entries are applied.", func() float64 { return float64(n.fsm.Applied()) }),
		gauge("muster_cluster_last_contact_seconds", "Time since raft heard from the leader; 0 on the leader.",
			ofRaft(lastContact)),
		gauge("muster_cluster_freshness_age_seconds", "How old the state of this node may be; -1 until it is ready.", func() float64 {
			stale, ready := n.Freshness()
			if !ready {
				return -1
			}
			return stale.Seconds()
		}),
		gauge("muster_cluster_disk_low", "1 while there is so little room that this node gives up leadership and refuses writes.", func() float64 {
			if n.space.low.Load() {
				return 1
			}
			return 0
		}),
		gauge("muster_cluster_queue_operations", "Operations that wait to be proposed.", func() float64 { return float64(n.queue.waiting()) }),
		gauge("muster_cluster_proposal_wait_seconds", "How long the oldest operation has waited here to be proposed, while it could have been.",
			func() float64 { return n.queue.backlog(time.Now()).wait.Seconds() }),
		gauge("muster_cluster_apply_gap_entries", "Entries of the log that are committed and not applied here.", func() float64 { return float64(n.applyGap()) }),
		gauge("muster_cluster_overloaded", "1 while this node refuses registrations because it, or the leader, has fallen behind.", func() float64 {
			if n.Overloaded() != nil {
				return 1
			}
			return 0
		}),
		gauge("muster_cluster_voters", "Members that vote.", func() float64 { return float64(len(n.voters())) }),
		gauge("muster_cluster_voters_alive", "Members that vote and that gossip finds alive, this one included.", func() float64 {
			members, alive := n.gossip.members(), 0
			for _, s := range n.voters() {
				if members[string(s.ID)].Alive {
					alive++
				}
			}
			return float64(alive)
		}),
		gauge("muster_cluster_gossip_health_score", "How badly gossip finds this node itself to be doing; 0 is well.", func() float64 { return float64(n.gossip.health()) }),
		gauge("muster_cluster_members_alive", "Nodes that gossip finds alive, this one included.", func() float64 { return float64(n.gossip.alive()) }),
		gauge("muster_cluster_snapshots", "Snapshots on disk.", func() float64 {
			list, err := n.snaps.List()
			if err != nil {
				return 0
			}
			return float64(len(list))
		}),
		gauge("muster_cluster_snapshot_index", "The raft index of the newest snapshot.", func() float64 {
			list, err := n.snaps.List()
			if err != nil || len(list) == 0 {
				return 0
			}
			return float64(list[0].Index)
		}),
	}
}

func lastContact(r *raft.Raft) float64 {
	if at := r.LastContact(); r.State() != raft.Leader && !at.IsZero() {
		return time.Since(at).Seconds()
	}
	return 0
}

// registrations remembers what this node and its inner rooms have registered, so
// that all of it can be taken back: the next node may be given the same registerer.
type registrations struct {
	prometheus.Registerer
	made []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (r *registrations) Register(c prometheus.Collector) error {
	if err := r.Registerer.Register(c); err != nil {
		return err
	}
	r.made = append(r.made, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (r *registrations) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

func (r *registrations) undo() {
	if r == nil {
		return
	}
	for _, c := range r.made {
		r.Unregister(c)
	}
}
