package lease_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/lease"
)

// simLease is a lease of the tiny replicated state.
type simLease struct {
	lease.Record
	key muster.InstanceKey
}

// simNode is one node: a keeper, its copy of the state, its place in the network.
type simNode struct {
	sim  *sim
	id   string
	stop context.CancelFunc // of the running process
	// applying is full while an entry is applied and observed. It is no mutex: who
	// waits for a paused node to go on must not keep time from passing.
	applying chan struct{}

	mu       sync.Mutex
	handlers map[string]func(context.Context, string, []byte) ([]byte, error)
	keeper   *lease.Keeper
	paused   chan struct{} // closed at the end of the pause; nil: runs
	term     uint64
	votes    bool // is a voter
	applied  int  // entries of the log
	leases   map[muster.LeaseID]*simLease
	byKey    map[muster.InstanceKey]muster.LeaseID
	timers   map[muster.InstanceKey]lease.Timer
}

// gate blocks while the node is paused: whatever it was about to do happens later.
func (n *simNode) gate() {
	for {
		n.mu.Lock()
		paused := n.paused
		n.mu.Unlock()
		if paused == nil {
			return
		}
		<-paused
	}
}

func (n *simNode) now() time.Time {
	n.gate()
	return time.Now()
}

// start starts the node's process with an empty memory; its log is replayed.
func (n *simNode) start(ctx context.Context) {
	ctx, n.stop = context.WithCancel(ctx)
	n.mu.Lock()
	n.handlers = map[string]func(context.Context, string, []byte) ([]byte, error){}
	n.mu.Unlock()
	k, err := lease.New(lease.Config{}, lease.Deps{State: n, Log: n, Raft: n, Peers: n, Now: n.now, Switches: n.sim.switches, Logger: n.sim.logger(n)})
	if err != nil {
		panic(err)
	}
	n.mu.Lock() // at once, or what the last process has under way is applied to half of it
	n.keeper = k
	n.leases, n.byKey, n.applied = map[muster.LeaseID]*simLease{}, map[muster.InstanceKey]muster.LeaseID{}, 0
	n.timers = map[muster.InstanceKey]lease.Timer{}
	n.mu.Unlock()
	n.sim.wg.Go(func() { _ = k.Run(ctx) })
	n.sim.wg.Go(func() { n.follow(ctx) })
}

// follow applies what is committed while the node runs and reaches a majority.
func (n *simNode) follow(ctx context.Context) {
	for {
		n.gate()
		if ctx.Err() != nil {
			return
		}
		if n.sim.reaches(n) >= n.sim.quorum() {
			n.catchUp()
		}
		if !wait(ctx, n.sim.applyEvery) {
			return
		}
	}
}

// catchUp applies all committed entries.
func (n *simNode) catchUp() {
	for {
		e, ok := n.sim.entry(n)
		if !ok {
			return
		}
		n.apply(e)
	}
}

// apply applies the next entry and has it observed, before anybody applies another.
func (n *simNode) apply(e simEntry) {
	n.applying <- struct{}{}
	defer func() { <-n.applying }()
	n.mu.Lock()
	if n.applied != e.index-1 { // another was faster, or the node has restarted
		n.mu.Unlock()
		return
	}
	n.applied = e.index
	c := lease.Changes{Index: uint64(e.index)}
	e.op(n, &e, &c)
	k := n.keeper
	n.mu.Unlock()
	k.Observe(c)
}

// Leases implements lease.State.
func (n *simNode) Leases(yield func(lease.Record) bool) {
	n.mu.Lock()
	recs := make([]lease.Record, 0, len(n.leases))
	for _, l := range n.leases {
		recs = append(recs, l.Record)
	}
	n.mu.Unlock()
	for _, r := range recs {
		if !yield(r) {
			return
		}
	}
}

// Timers implements lease.State.
func (n *simNode) Timers(yield func(lease.Timer) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.timers {
		if !yield(t) {
			return
		}
	}
}

// Find implements lease.State.
func (n *simNode) Find(k muster.InstanceKey) (muster.LeaseID, uint64, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id, ok := n.byKey[k]
	return id, 0, ok
}

// Decide implements lease.Log.
func (n *simNode) Decide(ctx context.Context, term uint64, d lease.Decision) (uint64, error) {
	n.gate()
	return n.sim.propose(ctx, n, term, func(n *simNode, e *simEntry, c *lease.Changes) {
		if e.term == term {
			n.decided(e, c, d)
		}
	})
}

// decided is what a decision does to the state. The node holds its mutex.
func (n *simNode) decided(e *simEntry, c *lease.Changes, d lease.Decision) {
	for _, ref := range d.Leases {
		l := n.leases[ref.ID]
		switch {
		case l == nil || d.Kind != lease.Renewed && l.Generation != ref.Generation:
		case d.Kind == lease.Expire, d.Kind == lease.LetGo:
			n.remove(l, c)
			n.sim.removed(l.ID, d.Kind, e.at)
		default:
			l.Suspect = d.Kind == lease.Suspect
			c.Leases = append(c.Leases, lease.Change{Record: l.Record})
		}
	}
	for _, t := range d.Timers {
		delete(n.timers, t.Key)
		c.Timers = append(c.Timers, lease.Timer{Key: t.Key})
		n.sim.timerEnded(t.Key, d.Kind, e.at)
	}
}

func (n *simNode) remove(l *simLease, c *lease.Changes) {
	delete(n.leases, l.ID)
	delete(n.byKey, l.key)
	c.Leases = append(c.Leases, lease.Change{Record: lease.Record{ID: l.ID}, Gone: true})
}

// ID implements lease.Raft.
func (n *simNode) ID() string { return n.id }

// CurrentTerm implements lease.Raft.
func (n *simNode) CurrentTerm() uint64 {
	n.gate()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.term
}

// Voters implements lease.Raft.
func (n *simNode) Voters() []string { return n.sim.voters() }

// Leader implements lease.Raft.
func (n *simNode) Leader() (string, string) { return n.sim.leaderSeenBy(n), "" }

// NoteMajority implements lease.Raft.
func (n *simNode) NoteMajority(uint64, time.Time) {}

// Handle implements lease.Peers.
func (n *simNode) Handle(method string, fn func(context.Context, string, []byte) ([]byte, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[method] = fn
}

var errLost = errors.New("message lost")

// Call implements lease.Peers. A message or its answer that meets a cut, a node
// that is down or a pause that outlasts ctx is lost.
func (n *simNode) Call(ctx context.Context, to, method string, body []byte) ([]byte, error) {
	n.gate()
	peer := n.sim.node(to)
	if !wait(ctx, n.sim.delay()) || !n.sim.linked(n, peer) {
		<-ctx.Done()
		return nil, errLost
	}
	type answer struct {
		body []byte
		err  error
	}
	got := make(chan answer, 1)
	n.sim.wg.Go(func() { // the peer's goroutine: it goes on when the caller has given up
		peer.gate()
		peer.mu.Lock()
		fn := peer.handlers[method]
		peer.mu.Unlock()
		b, err := fn(ctx, n.id, slices.Clone(body))
		got <- answer{b, err}
	})
	select {
	case a := <-got:
		if !wait(ctx, n.sim.delay()) || !n.sim.linked(peer, n) {
			<-ctx.Done()
			return nil, errLost
		}
		n.gate()
		return a.body, a.err
	case <-ctx.Done():
		return nil, errLost
	}
}

// wait waits d of virtual time and reports whether ctx still lasts.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
