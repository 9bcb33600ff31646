package health

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
)

// Config tunes a Supervisor. The zero Config is the one to use in production.
type Config struct {
	// MaxInFlight is the most probes in flight at once, all targets together; 0 is
	// 2,048. Beyond it probes are late.
	MaxInFlight int
	// ReportEvery is how often a node tells the leader that it probes, whether or
	// not there is news; 0 is 1 s.
	ReportEvery time.Duration
	// Silence is after how long a node that the leader has not heard of probes no
	// more; 0 is 4 s. Its checks move to others.
	Silence time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = 2048
	}
	if c.ReportEvery <= 0 {
		c.ReportEvery = time.Second
	}
	if c.Silence <= 0 {
		c.Silence = 4 * time.Second
	}
	return c
}

// Deps is what a Supervisor needs of the other rooms. Logger, Registerer and Dead
// may be left out.
type Deps struct {
	State State
	Log   Log
	Raft  Raft
	Peers Peers
	Guard *Guard
	// Dead is told, on the leader, about instances that the expiry governor holds
	// and whose checks have failed; over and over until they are gone or back.
	Dead       func([]*muster.Instance)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// State reads this node's copy of the registry. It is called from any goroutine;
// Instances may be called from within Observe.
type State interface {
	// Instances yields all instances.
	Instances(yield func(*muster.Instance) bool)
	// Routable is how many routable instances a service has.
	Routable(k muster.ServiceKey) int
	// Expired reports whether an instance is down because its lease ran out.
	Expired(i *muster.Instance) bool
}

// Log carries the leader's decisions into the log.
type Log interface {
	// Decide proposes transitions as one operation of the session of that term,
	// never forwarded, and waits until it was applied. After an error they are
	// judged again.
	Decide(ctx context.Context, term uint64, all []Transition) error
}

// Raft is what the supervisor asks of consensus.
type Raft interface {
	ID() string
	// Leader is the id of the leader, "" if none is known.
	Leader() (id, apiAddr string)
	// Live are the ids of the members that are taken to be alive.
	Live() []string
	// Ready reports whether this node's state has caught up since its start.
	Ready() bool
}

// Peers carries messages between members.
type Peers interface {
	Handle(method string, fn func(ctx context.Context, from string, body []byte) ([]byte, error))
	Call(ctx context.Context, memberID, method string, body []byte) ([]byte, error)
}

// Change is what became of one instance.
type Change struct {
	Key muster.InstanceKey
	// Instance is nil once it is gone.
	Instance *muster.Instance
}

// Changes is what a batch of applied entries did, in order.
type Changes struct {
	Instances []Change
	// Reset: the whole state was replaced; Instances are not looked at.
	Reset bool
}

// Transition is what the leader has decided about one instance.
type Transition struct {
	Key muster.InstanceKey
	// Life is the instance's ChecksFrom: where it has moved the decision does not
	// hold.
	Life uint64
	// Checks are the states of all its checks, in order; Since is not looked at.
	Checks []muster.CheckState
	// HeldUntil is the release time of an instance that changes too often; zero
	// where it is not held.
	HeldUntil time.Time
}
