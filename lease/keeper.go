package lease

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// The methods between members.
const (
	methodRenew  = "renew"
	methodGather = "gather"
	methodBeat   = "heartbeat"
	methodLook   = "lease"
)

// Keeper is a node's part in keeping leases: on every node the shadow table and
// the passing on of heartbeats, and while the node leads, a session that renews
// and expires. It is safe for concurrent use.
type Keeper struct {
	cfg     Config
	state   State
	log     Log
	raft    Raft
	peers   Peers
	clock   func() time.Time
	origin  time.Time
	stamps  uint64 // where those of this process begin, see stamp
	logger  *slog.Logger
	metrics *metrics
	table   *Table
	sw      Switches

	fast, slow *lane
	refused    atomic.Uint64 // heartbeats refused and not told to the leader yet

	// mu guards all below and the ledger of the session. Nothing is called under
	// it but the table and the switches.
	mu       sync.Mutex
	session  *session
	observed uint64        // muster index that was observed
	moved    chan struct{} // closed when observed moves, if anybody waits
}

// New returns a keeper and hangs its messages on deps.Peers. It starts nothing.
// The caller passes every batch of applied entries to Observe, runs Run, and
// calls Lead for every session.
func New(cfg Config, deps Deps) (*Keeper, error) {
	if deps.State == nil || deps.Log == nil || deps.Raft == nil || deps.Peers == nil {
		return nil, errors.New("lease: State, Log, Raft and Peers are needed")
	}
	k := &Keeper{
		cfg: cfg.withDefaults(), state: deps.State, log: deps.Log, raft: deps.Raft, peers: deps.Peers,
		clock: deps.Now, logger: deps.Logger, sw: deps.Switches,
	}
	if k.clock == nil {
		k.clock = time.Now
	}
	if k.logger == nil {
		k.logger = slog.New(slog.DiscardHandler)
	}
	k.origin, k.stamps = k.clock(), rand.Uint64()
	k.table = NewTable(0)
	k.fast, k.slow = newLane(k, false), newLane(k, true)
	var err error
	if k.metrics, err = newMetrics(deps.Registerer, k); err != nil {
		return nil, err
	}
	deps.Peers.Handle(methodRenew, k.handleRenew)
	deps.Peers.Handle(methodGather, k.handleGather)
	deps.Peers.Handle(methodBeat, k.handleBeat)
	deps.Peers.Handle(methodLook, k.handleLook)
	return k, nil
}

// now is the time since the keeper was made, on a clock that never steps.
func (k *Keeper) now() time.Duration { return k.clock().Sub(k.origin) }

// Run ticks the shadow table and passes heartbeats on until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range laneCalls {
		wg.Go(func() { k.fast.work(ctx) })
		wg.Go(func() { k.slow.work(ctx) })
	}
	defer wg.Wait()
	t := time.NewTicker(TickEvery)
	defer t.Stop()
	for {
		k.tick()
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (k *Keeper) tick() {
	voter := false
	self := k.raft.ID()
	for _, id := range k.raft.Voters() {
		voter = voter || id == self
	}
	k.table.Tick(k.now(), voter)
	leader, _ := k.raft.Leader()
	k.fast.follow(leader)
	k.slow.follow(leader)
}

// Observe follows the replicated state. It is called for every batch of applied
// entries, in order, on the goroutine that applies them, before anybody is told
// the outcome of an entry in it. It does not block on anything but short locks,
// except that a reset reads the leases of the whole state. The keeper may keep c.
func (k *Keeper) Observe(c Changes) {
	var fresh *content
	if c.Reset {
		fresh = k.read()
	}
	now := k.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if fresh != nil {
		k.table.Reset(c.Index, fresh.ids(), now)
	} else {
		k.table.Apply(c.Index, c.Leases, now)
	}
	if k.session != nil {
		k.session.observe(&c, fresh, now)
	}
	k.observed = c.Index
	if k.moved != nil {
		close(k.moved)
		k.moved = nil
	}
}

// content is what the state holds for the keeper.
type content struct {
	leases []Record
	timers []Timer
}

func (k *Keeper) read() *content {
	c := new(content)
	k.state.Leases(func(r Record) bool { c.leases = append(c.leases, r); return true })
	k.state.Timers(func(t Timer) bool { c.timers = append(c.timers, t); return true })
	return c
}

func (c *content) ids() iter.Seq[muster.LeaseID] {
	return func(yield func(muster.LeaseID) bool) {
		for i := range c.leases {
			if !yield(c.leases[i].ID) {
				return
			}
		}
	}
}

// waitObserved waits until the state has been followed up to index.
func (k *Keeper) waitObserved(ctx context.Context, index uint64) error {
	for {
		k.mu.Lock()
		if k.observed >= index {
			k.mu.Unlock()
			return nil
		}
		if k.moved == nil {
			k.moved = make(chan struct{})
		}
		moved := k.moved
		k.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leading returns the session that answers heartbeats, nil if there is none.
func (k *Keeper) leading() *session {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.session; s != nil && s.led != nil && s.ctx.Err() == nil {
		return s
	}
	return nil
}

// ConfirmDead says that active checks have confirmed that what hangs on these
// leases is dead: those the governor holds are let go at once.
func (k *Keeper) ConfirmDead(ids []muster.LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.session; s != nil && s.led != nil {
		s.led.confirm(ids)
	}
}

// Suspects is how many leases the governor holds, as far as this node leads.
func (k *Keeper) Suspects() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.session; s != nil && s.led != nil {
		return s.led.suspects
	}
	return 0
}

// NoteShed says that n heartbeats were refused for overload before they reached
// Beat. While that is many, nothing expires.
func (k *Keeper) NoteShed(n int) { k.shed(n) }

func (k *Keeper) shed(n int) {
	k.refused.Add(uint64(n))
	k.metrics.shed.Add(float64(n))
}

func (k *Keeper) takeShed() uint64 { return k.refused.Swap(0) }
