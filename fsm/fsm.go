package fsm

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what an FSM needs of its surroundings. The zero Config will do.
type Config struct {
	// Logger is told what an operator wants to know; nil: nobody.
	Logger *slog.Logger
	// Registerer takes the metrics; nil: they are not shown.
	Registerer prometheus.Registerer
	// Listeners are told what every batch changed, in this order.
	Listeners []Listener
	// Fatal is called, once and on raft's goroutine, when an entry cannot be
	// applied: only a newer version knows it, or it is damaged. It must see to it
	// that the process ends, and may return. nil panics.
	Fatal func(error)
}

// FSM is the replicated state of a registry, and a raft.BatchingFSM.
type FSM struct {
	log       *slog.Logger
	listeners []Listener
	onFatal   func(error)
	metrics   *metrics

	// mu is held by raft's goroutine while it applies a batch, and by whoever
	// looks at st without being that goroutine. Views are read without it.
	mu     sync.RWMutex
	st     *state   // guarded by mu
	broken error    // guarded by mu: an entry could not be applied
	ops    []parsed // raft's goroutine's scratch

	dir       atomic.Pointer[directory]
	list      atomic.Pointer[listing]
	clusterID atomic.Pointer[string]
	level     atomic.Uint64 // the feature level
	floor     atomic.Uint64
	applied   mark // raft index
	index     mark // muster index
}

var _ raft.BatchingFSM = (*FSM)(nil)

// New makes the FSM of an empty registry.
func New(cfg Config) (*FSM, error) {
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("registering the metrics of the state machine: %w", err)
	}
	f := &FSM{log: cfg.Logger, listeners: cfg.Listeners, onFatal: cfg.Fatal, metrics: m, st: newState()}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.st.out.listen = len(f.listeners) > 0
	f.dir.Store(f.st.dir)
	f.list.Store(newListing(0, f.st.dir))
	f.clusterID.Store(new(string))
	f.level.Store(f.st.level)
	if err := f.registerGauges(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("registering the metrics of the state machine: %w", err)
	}
	return f, nil
}

// Apply applies one entry; see ApplyBatch.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries. The response of a command is a
// []encoding.BinaryAppender, one result an operation, in order. Once an entry
// could not be applied, its response and all later ones are an error, and the
// state stays as it was before that entry.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	f.mu.Lock()
	if f.broken != nil {
		defer f.mu.Unlock()
		for n := range responses {
			responses[n] = f.broken
		}
		return responses
	}
	var fatal error
	for n, l := range logs {
		if fatal == nil {
			responses[n], fatal = f.applyLog(l)
		}
		if fatal != nil {
			responses[n] = fatal
		}
	}
	f.broken = fatal
	f.publish()
	if fatal != nil {
		f.fail(fatal)
	}
	return responses
}

// applyLog applies one entry, or leaves the state alone and returns why.
func (f *FSM) applyLog(l *raft.Log) (any, error) {
	if l.Type != raft.LogCommand {
		f.st.applied = l.Index
		return nil, nil
	}
	stamp, ops, err := decodeEntry(l.Data, f.ops[:0])
	if err != nil {
		return nil, fmt.Errorf("applying the log entry at index %d: %w", l.Index, err)
	}
	results := f.st.applyEntry(l, stamp, ops)
	f.st.out.tally.entries++
	clear(ops)
	f.ops = ops
	response := make([]encoding.BinaryAppender, len(results))
	for n := range results {
		response[n] = &results[n]
	}
	return response, nil
}

func (f *FSM) fail(err error) {
	if _, newer := errors.AsType[*UpgradeError](err); newer {
		f.log.Error("upgrade this node: the log holds what only a newer version knows", "err", err)
	} else {
		f.log.Error("a committed log entry cannot be read", "err", err)
	}
	if f.onFatal == nil {
		panic(err)
	}
	f.onFatal(err)
}

// publish ends a batch: it makes the state readable as it is now, and then tells
// everybody who waits for that. It is called with mu held, and releases it.
//
// The order matters. Views come before the index, so that whoever has waited for
// an index finds it in the views; the floor comes before the views, so that the
// index of a service does not fall when it is forgotten; channels are closed after
// the index, so that whoever is woken finds it too; listeners come last, without
// the lock.
func (f *FSM) publish() {
	s := f.st
	var wake []chan struct{}
	f.floor.Store(s.floor)
	for _, svc := range s.out.dirty {
		if ch := svc.publish(); ch != nil {
			wake = append(wake, ch)
		}
		if !svc.known {
			s.dir.remove(svc)
		}
	}
	clear(s.out.dirty)
	s.out.dirty = s.out.dirty[:0]
	replaced := f.dir.Swap(s.dir)
	if s.out.listed {
		wake = append(wake, f.list.Swap(newListing(s.listIndex, s.dir)).changed)
	}
	if *f.clusterID.Load() != s.clusterID {
		id := s.clusterID
		f.clusterID.Store(&id)
	}
	index, reset := s.index(), s.out.reset
	changes := s.out.drain(index, &s.leases)
	if reset {
		s.out.tally.resets++
	}
	f.index.raise(index)
	f.applied.raise(s.applied)
	f.level.Store(s.level)
	f.metrics.update(s)
	f.mu.Unlock()

	for _, ch := range wake {
		close(ch)
	}
	if replaced != s.dir {
		replaced.close()
	}
	if reset {
		f.log.Info("the whole state was replaced", "index", index)
	}
	for _, l := range f.listeners {
		l.Applied(changes)
	}
}

// Applied is the raft index of the last entry that was applied; entries that
// change the configuration of the cluster count.
func (f *FSM) Applied() uint64 { return f.applied.value.Load() }

// WaitApplied waits until the entry of that raft index was applied, or ctx ends.
func (f *FSM) WaitApplied(ctx context.Context, raftIndex uint64) error {
	return f.applied.wait(ctx, raftIndex)
}

// Index is the index of the last entry that was applied.
func (f *FSM) Index() uint64 { return f.index.value.Load() }

// WaitIndex waits until the entry of that index was applied, or ctx ends. An
// index of an older epoch was applied long ago.
func (f *FSM) WaitIndex(ctx context.Context, index uint64) error { return f.index.wait(ctx, index) }

// ClusterID is the id that the first epoch operation gave the cluster; "" before.
func (f *FSM) ClusterID() string { return *f.clusterID.Load() }
