package lease

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
)

// Config tunes a Keeper. The zero Config is the one to use in production.
type Config struct {
	// MaxHold is how long the governor holds a lease; 0 is 60 s.
	MaxHold time.Duration
	// GatherTimeout is how long a new leader waits for the shadows of a majority, for
	// each 100,000 leases or part of them; 0 is 500 ms.
	GatherTimeout time.Duration
	// CallTimeout bounds one message to a peer; 0 is 2 s.
	CallTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxHold <= 0 {
		c.MaxHold = time.Minute
	}
	if c.GatherTimeout <= 0 {
		c.GatherTimeout = 500 * time.Millisecond
	}
	if c.CallTimeout <= 0 {
		c.CallTimeout = 2 * time.Second
	}
	return c
}

// Deps is what a Keeper needs of the other rooms.
type Deps struct {
	State State
	Log   Log
	Raft  Raft
	Peers Peers
	// Switches turn the governor off; nil leaves it on everywhere.
	Switches Switches
	// Now is the clock, with a monotonic reading; nil is time.Now. A test stops a
	// node as SIGSTOP does by letting Now block.
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// State reads the replicated state of this node. The keeper calls it from any
// goroutine and without a lock, and on a Changes with Reset from within Observe.
type State interface {
	// Leases yields a consistent copy of all leases.
	Leases(yield func(Record) bool)
	// Timers yields the instances that are down by expiry or whose override has
	// an end.
	Timers(yield func(Timer) bool)
	// Find returns the lease an instance hangs on and its incarnation. The id is
	// zero for a persistent instance. ok is false where there is no such instance
	// and where it is down by expiry.
	Find(k muster.InstanceKey) (id muster.LeaseID, incarnation uint64, ok bool)
}

// Log carries the leader's own decisions into the replicated state.
type Log interface {
	// Decide proposes d as one operation of the session of that term, never
	// forwarded, and waits until it was applied or cannot be any more. The index
	// (a muster index) is that of the entry. An error that matches CodeNoLeader,
	// CodeOverloaded, CodeDiskFull or CodeShuttingDown means that d was not and
	// will not be applied, one dropped for its term included; any other error
	// leaves it open.
	Decide(ctx context.Context, term uint64, d Decision) (index uint64, err error)
}

// Raft is what the keeper asks of consensus.
type Raft interface {
	ID() string
	// CurrentTerm is raft's term, raised and persisted before a vote leaves.
	CurrentTerm() uint64
	Voters() []string
	// Leader is the member id and the API address of the leader, "" if none is
	// known.
	Leader() (id, apiAddr string)
	// NoteMajority says that a majority was at or below term after started.
	NoteMajority(term uint64, started time.Time)
}

// Peers carries messages between members. Errors of a handler arrive at the
// caller with their code.
type Peers interface {
	Handle(method string, fn func(ctx context.Context, from string, body []byte) ([]byte, error))
	Call(ctx context.Context, memberID, method string, body []byte) ([]byte, error)
}

// Switches say where the governor may hold leases.
type Switches interface {
	GovernorOn() bool
	GovernorOnFor(k muster.ServiceKey) bool
}

// Record is what the keeper must know of a lease.
type Record struct {
	ID         muster.LeaseID
	TTL        time.Duration
	Generation uint64
	// Suspect: the governor holds it.
	Suspect bool
	// Services are the services it hangs in. A service that is named more than
	// once counts as many instances.
	Services []muster.ServiceKey
}

// Change is what one log entry did to a lease: Record is the lease afterwards.
type Change struct {
	Record
	// Heard: it was granted, or a registration touched it.
	Heard bool
	// Gone: it ended. Only the id counts.
	Gone bool
}

// Timer is what the leader ends for an instance when the time comes. Both times
// zero: nothing (any more).
type Timer struct {
	Key muster.InstanceKey
	// ModifyIndex is the index of the last change of the instance.
	ModifyIndex uint64
	// RemoveAfter is set while the instance is down by expiry.
	RemoveAfter time.Duration
	// Until is the end of its override.
	Until time.Time
}

// Changes is what a batch of applied entries did, in order.
type Changes struct {
	// Index is the muster index up to which the state has been applied.
	Index  uint64
	Leases []Change
	Timers []Timer
	// Reset: the whole state was replaced. Leases and Timers are not looked at.
	Reset bool
}

// Kind is the kind of a decision.
type Kind uint8

// The kinds of decision.
const (
	// Expire ends leases that ran out.
	Expire Kind = iota
	// LetGo ends leases that the governor held until now.
	LetGo
	// Suspect holds leases that ran out in a mass loss.
	Suspect
	// Renewed takes the mark off leases that were held and heard from again.
	Renewed
	// Reap removes instances that were down by expiry for their RemoveAfter.
	Reap
	// EndOverrides ends overrides whose Until has passed.
	EndOverrides
	kinds
)

// String is the kind's name in logs and metrics.
func (k Kind) String() string {
	return [...]string{"expire", "let_go", "suspect", "renewed", "reap", "end_overrides"}[k]
}

// removes reports whether a renewal must wait for such a decision.
func (k Kind) removes() bool { return k == Expire || k == LetGo }

// Ref names a lease as the decision has seen it: where its generation has moved
// the decision skips it.
type Ref struct {
	ID         muster.LeaseID
	Generation uint64
}

// Decision is a decision of the leader's own: at most MaxDecision leases or
// timers.
type Decision struct {
	Kind   Kind
	Leases []Ref
	// Timers are the targets of Reap and EndOverrides.
	Timers []Timer
	// Reason is for people, on Suspect.
	Reason string
}

// MaxDecision is the most leases, or timers, of one decision.
const MaxDecision = 5000
