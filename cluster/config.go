package cluster

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
)

// StateMachine is what raft drives and what the Node asks about its own affairs.
// The response to a command entry is one encoding.BinaryAppender per operation,
// in order. Apply, ApplyBatch, Snapshot and Restore are called by raft as it
// documents; every other method is called concurrently from many goroutines.
type StateMachine interface {
	raft.BatchingFSM
	// Applied is the raft index of the last entry applied, configuration entries
	// included.
	Applied() uint64
	// WaitApplied returns once Applied has reached raftIndex, or ctx is done.
	WaitApplied(ctx context.Context, raftIndex uint64) error
	// Pack makes one log entry of at most MaxEntryOps operations.
	Pack(ops [][]byte, stamp time.Time) []byte
	// EpochOp makes the operation a new leader begins with. Its result is the
	// term of its entry, 8 bytes big-endian. A state that has no cluster id yet
	// takes newClusterID.
	EpochOp(newClusterID string) []byte
	// MemberOp makes the operation that remembers a member's boot counter, or
	// that it was removed.
	MemberOp(id string, boot uint64, removed bool) []byte
	// MemberBoot is the highest boot counter remembered of a member.
	MemberBoot(id string) uint64
	// MemberRemoved reports whether the member was removed for good.
	MemberRemoved(id string) bool
	// FeatureLevel is the highest level of operations and snapshots that the cluster
	// writes, KnownLevel that which this build can read; it never reads more.
	FeatureLevel() uint64
	KnownLevel() uint64
	// LevelOp makes the operation that raises the cluster's level, on the decision of
	// the leader of term.
	LevelOp(term, level uint64) []byte
	// ClusterID is "" until the first leader's first operation is applied.
	ClusterID() string
}

// Profile is a set of raft timeouts.
type Profile string

// The profiles: sub-second failover on good machines, the default, and one for
// slow disks and links.
const (
	ProfileFast    Profile = "fast"
	ProfileDefault Profile = "default"
	ProfileSlow    Profile = "slow"
)

// maxClusterName is what memberlist's label holds.
const maxClusterName = 128

// Addrs are the addresses of a node, each "host:port"; port 0 takes any.
type Addrs struct {
	// API is where the HTTP API is served. It is only told to others: the
	// cluster does not bind it.
	API string
	// Peer carries raft and the internal calls, Gossip the gossip (TCP and UDP).
	Peer   string
	Gossip string
	// Advertise is the host others reach all three ports at, a name or an IP;
	// empty: the host of each address.
	Advertise string
}

// Timing says how soon a leader that is gone is replaced.
type Timing struct {
	// Profile is ProfileDefault when empty.
	Profile Profile
	// SlowFailover leaves the election after a leader's death to raft's timers.
	SlowFailover bool
}

// Config says who a node is and whom it belongs with.
type Config struct {
	// DataDir holds everything the node must not forget. It is made if missing.
	DataDir string
	// Name is shown to people; the id made inside DataDir when empty.
	Name string
	Zone string
	// Version is the build, shown to people.
	Version string
	// ClusterName keeps clusters apart before they have an id; "muster" when empty.
	ClusterName string
	Addrs       Addrs
	// BootstrapExpect is how many nodes found a new cluster; 0: never found one,
	// only join.
	BootstrapExpect int
	// Join are gossip addresses to find others by; the node's own may be among them.
	Join   []string
	Timing Timing
	// Keys are the cluster's secrets, of peer.KeySize bytes each: the first is used,
	// any is accepted. With any, nodes encrypt what they say to each other and speak
	// only with nodes that have one of them.
	Keys [][]byte
	// MinFreePercent is the share of the data directory's file system, in percent up
	// to 90, below which the node writes no more: 10 where it is 0, no limit where it
	// is negative. 4 GiB are enough on any.
	MinFreePercent int
	// Insecure is shown in Status.
	Insecure bool
}

// withDefaults fills in what may be left out, and refuses what cannot be meant.
func (c Config) withDefaults() (Config, error) {
	if c.ClusterName == "" {
		c.ClusterName = "muster"
	}
	if c.Timing.Profile == "" {
		c.Timing.Profile = ProfileDefault
	}
	if _, ok := profiles[c.Timing.Profile]; !ok {
		return c, exitErrorf(exitConfig, "--raft-profile %q is none of fast, default, slow", c.Timing.Profile)
	}
	if c.MinFreePercent == 0 {
		c.MinFreePercent = defaultMinFree
	}
	if c.MinFreePercent > 90 {
		return c, exitErrorf(exitConfig, "--min-free-percent %d is more than 90", c.MinFreePercent)
	}
	if c.BootstrapExpect < 0 {
		return c, exitErrorf(exitConfig, "--bootstrap-expect %d is negative", c.BootstrapExpect)
	}
	if len(c.ClusterName) > maxClusterName {
		return c, exitErrorf(exitConfig, "--cluster-name is longer than %d bytes", maxClusterName)
	}
	if len(c.Addrs.Advertise) > 253 || len(hostOf(c.Addrs.API)) > 253 {
		return c, exitErrorf(exitConfig, "--advertise: a host is at most 253 bytes")
	}
	if hostOf(c.Addrs.Peer) == "" || hostOf(c.Addrs.Gossip) == "" {
		return c, exitErrorf(exitConfig, "the peer and gossip addresses are host:port, not %q and %q", c.Addrs.Peer, c.Addrs.Gossip)
	}
	return c, checkSeeds(c.Join)
}

// advertised is the address others reach a port at.
func (a *Addrs) advertised(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil || a.Advertise == "" {
		return addr
	}
	return net.JoinHostPort(a.Advertise, port)
}

// Deps are what a node is given. Only FSM is required.
type Deps struct {
	FSM        StateMachine
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Faults are the seams of tests; nil in production.
	Faults *Faults
}

// Outcome is what became of one operation: its result as the state machine
// encoded it, or an error. Err is a *muster.Error: no_leader, overloaded or
// shutting_down say that it was not applied, outcome_unknown that it may have been.
type Outcome = muster.Outcome
