package watch

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
)

// Config tunes a Hub. The zero Config is the one to use in production.
type Config struct {
	// MaxEvents and MaxBytes bound the ring, whichever is reached first; 0 is 8192
	// events and 16 MiB of what they take when encoded.
	MaxEvents int
	MaxBytes  int64
	// MaxStreams is how many streams there may be at once; 0 is 20,000.
	MaxStreams int
	// MinWakeInterval is the least time between two wakes for the same service (or
	// the same prefix); 0 is 50 ms.
	MinWakeInterval time.Duration
	// KeepAlive is how long a stream is silent before it gets a keep-alive; 0 is 15 s.
	KeepAlive time.Duration
	// StaleAfter is the age of this node's state from which streams are told of it;
	// 0 is 3 s, which a change of leader does not reach.
	StaleAfter time.Duration
	// StaleEvery is how often they are told again; 0 is 5 s.
	StaleEvery time.Duration
	// GoodbyeSpread is over how long the goodbyes are spread when Run ends; 0 is
	// 1 s. A few streams are told faster.
	GoodbyeSpread time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxEvents <= 0 {
		c.MaxEvents = 8192
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 16 << 20
	}
	if c.MaxStreams <= 0 {
		c.MaxStreams = 20_000
	}
	defaultTo(&c.MinWakeInterval, 50*time.Millisecond)
	defaultTo(&c.KeepAlive, 15*time.Second)
	defaultTo(&c.StaleAfter, 3*time.Second)
	defaultTo(&c.StaleEvery, 5*time.Second)
	defaultTo(&c.GoodbyeSpread, time.Second)
	return c
}

func defaultTo(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Deps are the parts a Hub stands on.
type Deps struct {
	State   State
	Cluster Cluster
	// Logger is told what an operator wants to know; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil: they are not shown.
	Registerer prometheus.Registerer
}

// State reads the replicated state of this node. Its methods are called from any
// goroutine, also from within Hub.Applied, and wait for nobody. A view is
// replaced, never changed, and once for a whole batch; it is published before the
// Hub is told of the batch.
type State interface {
	// View is the latest view of a service: nil where nothing is known of it,
	// without instances where there were some.
	View(k muster.ServiceKey) *muster.View
	// Views yields the latest views of all services that are known, in order.
	Views() iter.Seq[*muster.View]
	// Floor is no lower than the index of any service that was forgotten, at most 1
	// where none was. It rises before the view goes.
	Floor() uint64
	// Index is the index of the last entry that was applied.
	Index() uint64
	// ClusterID is the id of the cluster that the state belongs to.
	ClusterID() string
}

// Cluster says how current this node is. Its methods are called from any
// goroutine.
type Cluster interface {
	// Freshness is how old the state of this node may be, and whether it may be
	// shown at all.
	Freshness() (stale time.Duration, ready bool)
	// Confirmed is the commit index (of raft) of a leader that a majority follows.
	Confirmed(ctx context.Context) (raftIndex uint64, err error)
}

// Batch is what one batch of applied entries did, in order.
type Batch struct {
	// Index is the index of the last entry of the batch.
	Index uint64
	// Entries are those that made events; none where Reset is set.
	Entries []Entry
	// Reset says that the whole state was replaced, by a restore or by a snapshot of
	// the leader's: nothing before Index can be told as changes.
	Reset bool
}

// Entry is the events of one log entry.
type Entry struct {
	Index  uint64
	Events []*muster.Event
}
