package cluster

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/cluster/logstore"
	"github.com/muster-registry/muster/cluster/peer"
	"github.com/muster-registry/muster/fault"
)

// timing is what a profile stands for.
type timing struct {
	heartbeat time.Duration // and election: raft detects a dead leader in one to three of them
	lease     time.Duration // a leader that no majority answered for this long steps down
	// callTimeout bounds a question whose answer is worthless when late; it allows
	// for a slow link.
	callTimeout time.Duration
	// stabilise is how long a learner has to be well before it gets a vote. Safety
	// does not rest on it: a table of leases counts from when its node became a voter,
	// whatever this is. It keeps nodes that come and go from moving the quorum.
	stabilise time.Duration
	// foundAfter is how long the founders of a cluster must have been the same.
	foundAfter time.Duration
	commit     time.Duration
	snapshots  raft.ReloadableConfig
}

var profiles = map[Profile]timing{
	ProfileFast:    {heartbeat: 300 * time.Millisecond, lease: 250 * time.Millisecond, callTimeout: time.Second, stabilise: 5 * time.Second},
	ProfileDefault: {heartbeat: 500 * time.Millisecond, lease: 400 * time.Millisecond, callTimeout: 2 * time.Second, stabilise: 10 * time.Second},
	ProfileSlow:    {heartbeat: time.Second, lease: 800 * time.Millisecond, callTimeout: 4 * time.Second, stabilise: 20 * time.Second},
}

// commitTimeout is how soon, at most twice over, followers learn what was committed
// where no further entry tells them and the nudge (nudge.go) was lost. The price is
// an empty message to each follower as often.
const commitTimeout = 100 * time.Millisecond

// The log that is kept behind a snapshot is long, because a follower that needs
// a whole snapshot is the rare and delicate case.
const (
	snapshotInterval  = time.Minute
	snapshotThreshold = 8192
	trailingLogs      = 10240
	retainSnapshots   = 2
)

// Faults are the seams of tests. The zero value changes nothing.
type Faults struct {
	// Log makes writes of the log fail, hang or be slow.
	Log *logstore.Faults
	// Links cuts the connections between nodes, by their peer and gossip addresses.
	Links *peer.Links
	// Space, if not nil, replaces the system's word on how many bytes of how many are
	// free where a directory lies.
	Space func(dir string) (free, total uint64, err error)
	// Stabilise, if not 0, replaces the wait before a cluster is founded and the
	// profile's before a learner gets a vote.
	Stabilise time.Duration
	// CommitTimeout, if not 0, replaces how soon followers learn by themselves what
	// was committed.
	CommitTimeout time.Duration
	// SnapshotInterval, SnapshotThreshold and TrailingLogs replace raft's settings
	// if SnapshotInterval is not 0.
	SnapshotInterval                time.Duration
	SnapshotThreshold, TrailingLogs uint64
}

func (c *Config) timing(f *Faults) timing {
	t := profiles[c.Timing.Profile]
	t.foundAfter, t.commit = bootstrapStable, commitTimeout
	t.snapshots = raft.ReloadableConfig{SnapshotInterval: snapshotInterval, SnapshotThreshold: snapshotThreshold, TrailingLogs: trailingLogs}
	if f.Stabilise != 0 {
		t.stabilise, t.foundAfter = f.Stabilise, f.Stabilise
	}
	if f.CommitTimeout != 0 {
		t.commit = f.CommitTimeout
	}
	if f.SnapshotInterval != 0 {
		t.snapshots = raft.ReloadableConfig{SnapshotInterval: f.SnapshotInterval, SnapshotThreshold: f.SnapshotThreshold, TrailingLogs: f.TrailingLogs}
	}
	if fault.On && fault.Snapshots() != "" {
		t.snapshots = snapshotsLike(fault.Snapshots())
	}
	return t
}

// snapshotsLike reads what a build with faults is told of its snapshots. A text that
// cannot be read must not pass for one that changes nothing.
func snapshotsLike(s string) (c raft.ReloadableConfig) {
	var interval string
	_, err := fmt.Sscan(s, &interval, &c.SnapshotThreshold, &c.TrailingLogs)
	if err == nil {
		c.SnapshotInterval, err = time.ParseDuration(interval)
	}
	if err != nil {
		panic(fmt.Sprintf("%q is not an interval, a threshold and a number of entries: %v", s, err))
	}
	return c
}

// raftConfig sets raft up. Batching happens above raft, so its own apply buffer
// stays off: entries in it would never be answered after a shutdown.
func raftConfig(id string, t timing, logger *slog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.ProtocolVersion = 3
	c.LocalID = raft.ServerID(id)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = t.heartbeat, t.heartbeat, t.lease
	c.MaxAppendEntries = 256
	c.CommitTimeout = t.commit
	c.BatchApplyCh = false
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.SnapshotInterval = t.snapshots.SnapshotInterval
	c.SnapshotThreshold = t.snapshots.SnapshotThreshold
	c.TrailingLogs = t.snapshots.TrailingLogs
	c.Logger = newRaftLogger(logger)
	return c
}
