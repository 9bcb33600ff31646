package httpapi

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
	"github.com/prometheus/client_golang/prometheus"
)

// Registry is what the routes ask of the registry. All methods are called
// concurrently, one goroutine per request, and honour their context, whose
// deadline is the caller's timeout. They check and fold names and instances
// themselves; what they are given may be changed by them and is not used again.
//
// An error is a *[muster.Error] wherever a user is to blame or can do something
// about it. An error of a context stands for a request whose time ran out before
// anything was decided.
type Registry interface {
	// Register creates or replaces an instance. An identical one changes nothing.
	Register(ctx context.Context, who muster.Caller, inst *muster.Instance, cond muster.Condition) (muster.Written, error)
	// RegisterBatch registers many and answers one item per instance, in order.
	// The error is that of the whole batch: nothing of it was registered.
	RegisterBatch(ctx context.Context, who muster.Caller, insts []*muster.Instance) ([]muster.BatchItem, error)
	// Deregister takes an instance away; incarnation 0 asks for no fencing.
	Deregister(ctx context.Context, who muster.Caller, k muster.InstanceKey, incarnation uint64, cond muster.Condition) (muster.Written, error)
	SetOverride(ctx context.Context, who muster.Caller, k muster.InstanceKey, o muster.Override) (muster.Written, error)
	ClearOverride(ctx context.Context, who muster.Caller, k muster.InstanceKey) (muster.Written, error)

	// The reads below answer a ReadInfo not only with a result but with every
	// unknown_service and unknown_instance too: its Index, never 0, and the Changed
	// channel a long poll waits on.

	// Service answers the view of a service, narrowed by q where q is not nil. The
	// instances of successive views are told apart by their entity tags.
	Service(ctx context.Context, k muster.ServiceKey, q *muster.Query, o muster.ReadOptions) (*muster.View, muster.ReadInfo, error)
	// Instance answers one instance; the ReadInfo is that of its service's view.
	Instance(ctx context.Context, k muster.InstanceKey, o muster.ReadOptions) (*muster.Instance, muster.ReadInfo, error)
	// Services answers the services of a namespace whose names begin with prefix,
	// in order.
	Services(ctx context.Context, namespace, prefix string, o muster.ReadOptions) (*muster.Services, muster.ReadInfo, error)
	// Events answers from the journal.
	Events(ctx context.Context, q muster.EventQuery, o muster.ReadOptions) (*muster.Events, muster.ReadInfo, error)
}

// Cluster is what the routes ask of the node's membership. ID, Leader, ClusterID
// and Freshness are called for every request and must be cheap; all methods are
// called concurrently.
type Cluster interface {
	// ID is the id of this node; it never changes.
	ID() string
	// Leader is the id and the API address of the leader this node knows; empty
	// where it knows none.
	Leader() (id, apiAddr string)
	// ClusterID is the id of the cluster; empty until the node has learnt it.
	ClusterID() string
	// Freshness is how old a local read may be, and whether the node has caught up
	// since its start, that is whether it answers reads at all.
	Freshness() (stale time.Duration, ready bool)
	// Startup is what a node is busy with that has not caught up.
	Startup() muster.Startup
	// Overloaded is why no registration is taken just now; nil where they are. It is
	// called for every write.
	Overloaded() error
	// Status is what GET /v1/cluster shows.
	Status() muster.Cluster
	// TransferLeadership hands leadership to a member, to any fit one if to is
	// empty, and returns once that one leads.
	TransferLeadership(ctx context.Context, to string) error
	// RemoveMember removes a member, or answers conflict where that would endanger
	// the quorum.
	RemoveMember(ctx context.Context, id string) error
}

// Deps are the parts a Server stands on.
type Deps struct {
	// Listener is where Run serves. The Server closes it when Run returns.
	Listener net.Listener
	Registry Registry
	Leases   Leases
	Watches  Watches
	Settings Settings
	Backups  Backups
	Cluster  Cluster
	// Balancer chooses and learns, Tickets takes the reports on its tickets.
	Balancer *balancer.Balancer
	Tickets  Tickets
	// LogLevels says how much the node logs.
	LogLevels LogLevels
	// Logger takes the access log, see Config.Access, and all requests at level
	// debug; nil discards.
	Logger *slog.Logger
	// Registerer takes the room's own metrics, Gatherer is what /metrics shows;
	// nil for none.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer
}
