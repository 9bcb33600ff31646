package watch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// confirmWait bounds how long a stream with a cursor ahead of this node waits for
// the leader's word; without it the stream waits for the node to catch up.
const confirmWait = 2 * time.Second

// Hub holds the latest entries and the streams that read them.
type Hub struct {
	cfg     Config
	state   State
	cluster Cluster
	log     *slog.Logger
	metrics *metrics
	running atomic.Bool
	scratch map[muster.ServiceKey]*change // the writer's

	// signal tells Run that there is something to wake for.
	signal chan struct{}

	// seats guards who is there: streams, and those of every audience. It is taken
	// after mu, or alone: going through thousands of streams must not hold up the
	// writer, who does not take it.
	seats   sync.Mutex
	streams map[*Stream]struct{}

	// mu guards all below. It is held for short, because the writer waits for it.
	mu       sync.RWMutex
	index    uint64 // of the last batch
	replaced uint64 // index at which the state was last replaced as a whole
	ring     ring
	topics   map[muster.ServiceKey]*topic
	groups   groups
	cuts     []*group // that may have a cut to share
	closing  bool
	stale    staleness

	// What Run is to wake for.
	touched  []*topic
	everyone bool
	// moved is closed at the next batch; nil unless somebody waits.
	moved chan struct{}
}

// staleness is what streams were last told of the age of the state.
type staleness struct {
	age  time.Duration // 0: current again
	told uint32        // counts what was told
}

// New returns a Hub whose history begins at the index that the state has now.
// From then on Applied has to be called for every batch.
func New(cfg Config, deps Deps) (*Hub, error) {
	if deps.State == nil || deps.Cluster == nil {
		return nil, errors.New("watch: needs a state and a cluster")
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	index := deps.State.Index()
	h := &Hub{
		cfg: cfg.withDefaults(), state: deps.State, cluster: deps.Cluster, log: deps.Logger,
		scratch: make(map[muster.ServiceKey]*change), signal: make(chan struct{}, 1),
		index: index, ring: ring{floor: index},
		topics: make(map[muster.ServiceKey]*topic), groups: groups{byKey: make(map[groupKey]*group)},
		streams: make(map[*Stream]struct{}),
	}
	var err error
	h.metrics, err = newMetrics(deps.Registerer, h)
	return h, err
}

// Applied tells the Hub what one batch did. The writer calls it once for every
// batch, also for one without events, in order, on one goroutine, after the views
// of the batch can be read. It waits for no reader.
func (h *Hub) Applied(b Batch) {
	now := time.Now()
	var entries []*entry
	if !b.Reset {
		for _, e := range b.Entries {
			if len(e.Events) > 0 {
				entries = append(entries, h.build(e, now))
			}
		}
	}

	h.mu.Lock()
	h.index = b.Index
	if b.Reset {
		h.reset(b.Index)
	}
	for _, e := range entries {
		h.link(e)
	}
	h.trim()
	news := len(h.touched) > 0 || h.everyone
	if h.moved != nil {
		close(h.moved)
		h.moved = nil
	}
	h.mu.Unlock()

	if news {
		select {
		case h.signal <- struct{}{}:
		default: // Run has yet to look at what was signalled before
		}
	}
}

// Spec says what a stream carries: the named services of a namespace, or where
// none is named all whose names start with Prefix.
type Spec struct {
	// Namespace is muster.DefaultNamespace when empty.
	Namespace string
	Services  []string
	// Prefix goes without Services; "" is every service of the namespace.
	Prefix string
	// From is the index of the last synced or change message that was seen, on
	// whichever node; nil starts with a snapshot.
	From *uint64
	// Cluster is the id of the cluster that From is of; "" if that is not known.
	Cluster string
	// Format is how Stream.WriteTo renders.
	Format Format
}

// Subscribe opens a stream, which has to be closed. The error is a *muster.Error:
// catching_up, shutting_down, overloaded, invalid_name, conflicting_field, or
// cursor_gone where From is of another cluster or ahead of what the cluster has
// committed. A cursor that is only ahead of this node waits, in the stream.
func (h *Hub) Subscribe(ctx context.Context, spec Spec) (*Stream, error) {
	sel, err := choose(spec)
	if err != nil {
		return nil, err
	}
	if _, ready := h.cluster.Freshness(); !ready {
		return nil, muster.Errorf(muster.CodeCatchingUp, "this node has started and has not yet caught up with a leader").
			WithHint("ask another node, or try again shortly").WithRetryAfter(time.Second)
	}
	if own := h.state.ClusterID(); spec.Cluster != "" && spec.Cluster != own {
		return nil, muster.Errorf(muster.CodeCursorGone, "the cursor is of another cluster; this one is %q", own).
			WithHint("start again without a cursor")
	}
	if spec.From != nil {
		if err := h.confirm(ctx, *spec.From); err != nil {
			return nil, err
		}
	}
	return h.join(newStream(h, sel, spec))
}

// join registers a stream.
func (h *Hub) join(s *Stream) (*Stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seats.Lock()
	defer h.seats.Unlock()
	switch {
	case h.closing:
		return nil, muster.Errorf(muster.CodeShuttingDown, "this node is stopping").WithHint("ask another node").WithRetryAfter(time.Second)
	case len(h.streams) >= h.cfg.MaxStreams:
		return nil, muster.Errorf(muster.CodeOverloaded, "this node has %d streams open and takes no more", len(h.streams)).
			WithHint("ask another node").WithRetryAfter(time.Second)
	}
	h.streams[s] = struct{}{}
	s.joined = h.index
	s.staleSeen = h.stale.told
	if h.stale.age > 0 {
		s.staleSeen-- // to be told at once
	}
	if s.sel.services == nil {
		s.group = h.groups.obtain(s.sel.group, h.ring.floor)
		s.group.join(s)
	}
	for _, name := range s.sel.services {
		t := h.topicOf(muster.ServiceKey{Namespace: s.sel.group.namespace, Service: name})
		t.join(s)
		s.topics = append(s.topics, t)
	}
	return s, nil
}

// leave takes a stream out.
func (h *Hub) leave(s *Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seats.Lock()
	defer h.seats.Unlock()
	delete(h.streams, s)
	if g := s.group; g != nil {
		if g.leave(s); g.seats == 0 {
			h.groups.drop(g.key)
		}
	}
	for _, t := range s.topics {
		t.leave(s)
		h.forget(t)
	}
	s.group, s.topics = nil, nil
}

// position is the index up to which this node has applied: that of the state
// where a batch without events was not told.
func (h *Hub) position() uint64 {
	h.mu.RLock()
	index := h.index
	h.mu.RUnlock()
	return max(index, h.state.Index())
}

// confirm returns cursor_gone where a cursor is surely not one of this cluster's.
func (h *Hub) confirm(ctx context.Context, cursor uint64) error {
	at := h.position()
	if cursor <= at {
		return nil
	}
	epoch, raft := muster.SplitIndex(cursor)
	nowEpoch, nowRaft := muster.SplitIndex(at)
	if cursor > muster.MaxIndex || raft <= nowRaft && epoch > nowEpoch {
		return ahead(cursor, at)
	}
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	if confirmed, err := h.cluster.Confirmed(ctx); err == nil && raft > confirmed {
		return ahead(cursor, at)
	}
	// Confirmed, or nobody can say: the stream waits for this node to get there.
	return nil
}

func ahead(cursor, at uint64) error {
	return muster.Errorf(muster.CodeCursorGone, "index %d is ahead of all that this cluster has committed; this node is at %d", cursor, at).
		WithHint("it belongs to another cluster, or to one that was founded anew: start again without a cursor")
}
