package registry

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/filter"
	"github.com/muster-registry/muster/fsm"
)

// Consensus is what the registry needs of the cluster. All methods are called
// concurrently and honour their context.
type Consensus interface {
	// Propose has operations applied, from whichever node, and answers one outcome
	// for each, in order.
	Propose(ctx context.Context, ops [][]byte) []muster.Outcome
	// ProposeVital is Propose for what goes before registrations, and is taken where
	// they are refused.
	ProposeVital(ctx context.Context, ops [][]byte) []muster.Outcome
	// ReadIndex returns once this node's state reflects every write that was
	// acknowledged before the call.
	ReadIndex(ctx context.Context) error
	// Confirmed returns the commit index (of raft) of a leader that a majority
	// still follows.
	Confirmed(ctx context.Context) (raftIndex uint64, err error)
	// Freshness says how old the state of this node may be, and whether it may be
	// shown at all.
	Freshness() (stale time.Duration, ready bool)
	// Refresh asks the leader where the state may be older than maxStale, and
	// returns CodeTooStale where that does not help.
	Refresh(ctx context.Context, maxStale time.Duration) error
}

// Config is the registry's configuration.
type Config struct {
	// Logger takes what an operator should know; nil discards it.
	Logger *slog.Logger
}

// Deps are the parts the registry works with; all are needed.
type Deps struct {
	State     *fsm.FSM
	Consensus Consensus
	Keeper    Keeper
}

// Registry answers for the whole of what is registered.
type Registry struct {
	state     *fsm.FSM
	consensus Consensus
	keeper    Keeper
	log       *slog.Logger
	filters   filter.Cache
}

// New returns a registry over deps.
func New(cfg Config, deps Deps) (*Registry, error) {
	if deps.State == nil || deps.Consensus == nil || deps.Keeper == nil {
		return nil, errors.New("registry: needs a state, a consensus and a keeper of leases")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Registry{state: deps.State, consensus: deps.Consensus, keeper: deps.Keeper, log: cfg.Logger}, nil
}

// ownWriteWait bounds how long an answer to a write is held back so that whoever
// wrote through this node finds it on this node. A follower learns within
// milliseconds what was committed; one that does not, says so by its index.
const ownWriteWait = 250 * time.Millisecond

// settle waits until this node has applied a write it is about to answer.
func (r *Registry) settle(ctx context.Context, index uint64) {
	if index <= r.state.Index() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, ownWriteWait)
	defer cancel()
	// Not an error: the write is done, and ?min_index= waits for the rest.
	_ = r.state.WaitIndex(ctx, index)
}

// propose has one operation applied and returns its result; a rejection of the
// state machine is returned as its error beside the result, whose index is set.
func (r *Registry) propose(ctx context.Context, op fsm.Op) (fsm.Result, error) {
	propose := r.consensus.Propose
	switch op.(type) {
	case fsm.Deregister, fsm.RevokeLease, fsm.SwitchGovernor, fsm.RestoreChunk, fsm.RestoreCommit:
		propose = r.consensus.ProposeVital
	}
	res, err := r.result(ctx, propose(ctx, [][]byte{fsm.Encode(op)})[0])
	r.settle(ctx, res.Index)
	return res, err
}

func (r *Registry) result(ctx context.Context, o muster.Outcome) (fsm.Result, error) {
	if o.Err != nil {
		return fsm.Result{}, o.Err
	}
	res, err := fsm.DecodeResult(o.Result)
	if err != nil {
		r.log.ErrorContext(ctx, "cannot read the result of an applied operation", "err", err)
		return fsm.Result{}, muster.Errorf(muster.CodeOutcomeUnknown, "the write was applied but its result cannot be read: the nodes run different versions").WithCause(err)
	}
	if res.Err != nil {
		return res, res.Err
	}
	return res, nil
}

func written(res fsm.Result) muster.Written {
	return muster.Written{Index: res.Index, Created: res.Created, Changed: res.Changed, Instance: res.Instance}
}
