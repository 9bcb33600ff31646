package clustertest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

// world is one run of the simulation, in one bubble of virtual time: machines,
// their network, the owners of leases, and what is written down of all of them.
type world struct {
	t         *testing.T
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	rng       *rand.Rand // the script's own
	nodes     []*machine
	gentle    bool
	snapshots bool           // take them often, keep little log
	governor  lease.Switches // nil: on
	faulty    faulty
	hold      time.Duration // how long the governor may hold a lease
	began     time.Time

	mu         sync.Mutex   // guards all below
	cuts       map[link]int // how many causes cut it
	history    history
	leases     []*held
	violations []violation
	traced     []string
	acks       int
	suspected  int
	queued     bool // a decision has waited
}

// faulty breaks what the keeper stands on, to see that the checks find it.
type faulty struct {
	raft   func(p *process) lease.Raft
	peers  func(p *process) lease.Peers
	now    func(p *process) time.Time
	decide func(p *process, term uint64, d lease.Decision)
	deaf   bool // a stalled keeper does not hear heartbeats; its clock goes on
	// queued is how long the first decision waits before it is proposed.
	queued time.Duration
}

// violation is a promise that was broken.
type violation struct {
	kind string // early, late, unknown, lost, revived, state
	text string
}

// governorOff keeps the governor out of it.
type governorOff struct{}

func (governorOff) GovernorOn() bool                     { return false }
func (governorOff) GovernorOnFor(muster.ServiceKey) bool { return false }

// options of a world.
type options struct {
	nodes     int
	seed      uint64
	snapshots bool
	governor  bool
	gentle    bool // nothing is killed by chance: tables grow old
	faulty    faulty
}

// simulate runs play in a world of its own and returns what it left behind. All
// nodes run and a leader has taken over when play begins.
func simulate(t *testing.T, o options, play func(w *world)) (w *world) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w = &world{
			t: t, rng: rand.New(rand.NewPCG(o.seed, 1)), snapshots: o.snapshots, gentle: o.gentle, faulty: o.faulty,
			began: time.Now(), cuts: map[link]int{}, history: newHistory(o.nodes),
		}
		if !o.governor {
			w.governor = governorOff{}
		}
		w.ctx, w.cancel = context.WithCancel(context.Background())
		var servers []raft.Server
		for i := range o.nodes {
			n := &machine{index: i, id: fmt.Sprintf("n%d", i+1), disk: &disk{InmemStore: raft.NewInmemStore()}, snaps: &simSnapshots{}}
			w.nodes = append(w.nodes, n)
			servers = append(servers, raft.Server{ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.id)})
		}
		for _, n := range w.nodes {
			p := &process{w: w, n: n}
			if err := raft.BootstrapCluster(w.raftConfig(p), n.disk, n.disk, n.snaps, newSimTransport(p), raft.Configuration{Servers: servers}); err != nil {
				t.Fatal(err)
			}
			w.start(n)
		}
		w.wg.Go(w.watchCommits)
		w.waitLeader(10 * time.Second)
		play(w)
		w.cancel()
		w.kill(w.nodes...)
		w.wg.Wait()
	})
	return w
}

// index is the place of a node.
func (w *world) index(id string) int {
	return slices.IndexFunc(w.nodes, func(n *machine) bool { return n.id == id })
}

// sleep lets virtual time pass.
func (w *world) sleep(d time.Duration) { simSleep(nil, d) }

// between is a random duration of the script's.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rng.Int64N(int64(most-least)+1))
}

// leader is the node with the open session of the highest term; nil: none.
func (w *world) leader() *machine {
	var leader *machine
	var term uint64
	for _, n := range w.nodes {
		if p := n.running(); p != nil && !p.stop.isShut() {
			if s := p.session.Load(); s != nil && s.term > term {
				leader, term = n, s.term
			}
		}
	}
	return leader
}

// waitLeader waits until a leader has taken the leases over and reports whether
// one has within patience.
func (w *world) waitLeader(patience time.Duration) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); w.sleep(20 * time.Millisecond) {
		if n := w.leader(); n != nil {
			if s := n.running().session.Load(); s != nil && w.gathered(s.term) {
				return true
			}
		}
	}
	return false
}

func (w *world) gathered(term uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.history.gathered[term]
}

// failovers is how often another leader has taken the leases over.
func (w *world) failovers() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(0, len(w.history.takeovers)-1)
}

// fail notes a broken promise.
func (w *world) fail(kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, violation{kind, fmt.Sprintf("at %v: ", time.Since(w.began)) + fmt.Sprintf(format, args...)})
}

// broken reports how often a promise of that kind was broken.
func (w *world) broken(kind string) int {
	n := 0
	for _, v := range w.violations {
		if v.kind == kind {
			n++
		}
	}
	return n
}

// report fails the test for each broken promise, and tells what led to it.
func (w *world) report(t *testing.T) {
	t.Helper()
	for _, v := range w.violations {
		t.Errorf("%s: %s", v.kind, v.text)
	}
	if len(w.violations) > 0 {
		for _, line := range w.traced {
			t.Log(line)
		}
	}
}

// trace remembers a line for whoever has to find out what happened.
func (w *world) trace(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.traced = append(w.traced, fmt.Sprintf("%12v ", time.Since(w.began))+fmt.Sprintf(format, args...))
}

// applied writes down what a process applied: the ends of leases at the moment the
// first process shows them.
func (w *world) applied(p *process, c fsm.Changes) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if c.Reset {
		w.history.reset(p.n.index, now)
	}
	for _, e := range c.Entries {
		for _, ev := range e.Events {
			if ev.Cause == muster.CauseSuspected {
				w.suspected++
			}
			if ev.Cause == muster.CauseLeaseExpired || ev.Cause == muster.CauseReleased {
				k := muster.InstanceKey{Namespace: ev.Namespace, Service: ev.Service, ID: ev.ID}
				if w.history.expired(k, e.Index, now) {
					w.traced = append(w.traced, fmt.Sprintf("%12v %s expired at index %d, first seen at %s", time.Since(w.began), k, e.Index, p.n.id))
				}
			}
		}
	}
}

// born and down say that a process begins and ends.
func (w *world) born(n *machine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history.reset(n.index, time.Now())
	w.history.down[n.index].end(time.Now())
}

func (w *world) down(n *machine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history.down[n.index].begin(time.Now())
}

// opened says that a session begins, tookOver that it has gathered, and confirmed
// that a round of renewals had its majority.
func (w *world) opened(p *process, term uint64) { w.trace("%s leads in term %d", p.n.id, term) }

func (w *world) tookOver(p *process, term uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !p.isDead() {
		w.history.tookOver(p.n.index, term, time.Now())
	}
}

func (w *world) confirmed(p *process, term uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !p.isDead() && w.history.gathered[term] {
		w.history.mark(time.Now())
	}
}

// watchCommits writes down when a leader had entries that were not committed for a
// while: its disk hung, or raft had not come back yet to a follower that was away.
func (w *world) watchCommits() {
	const every = 40 * time.Millisecond
	var waiting uint64 // the commit index that did not move
	var since time.Time
	for simSleep(w.ctx.Done(), every) {
		index := uint64(0)
		if n := w.leader(); n != nil {
			if r := n.running().raft; r.LastIndex() > r.CommitIndex() {
				index = r.CommitIndex()
			}
		}
		now := time.Now()
		if index != waiting || index == 0 {
			if waiting != 0 && now.Sub(since) > every {
				w.mu.Lock()
				w.history.stuck.add(since.Add(-every), now)
				w.mu.Unlock()
			}
			waiting, since = index, now
		}
	}
}

// refused writes down that a leader takes no entry now: it hands leading over, and
// whoever was refused does not try again at once.
func (w *world) refused() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history.stuck.add(time.Now(), time.Now().Add(250*time.Millisecond))
}

// checkStates waits until all nodes have applied the same and compares them.
func (w *world) checkStates() {
	type state struct {
		hash  [32]byte
		index uint64
	}
	var states []state
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); w.sleep(50 * time.Millisecond) {
		states = states[:0]
		for _, n := range w.nodes {
			h, i := n.running().state.Hash()
			states = append(states, state{h, i})
		}
		if !slices.ContainsFunc(states, func(s state) bool { return s.index != states[0].index }) {
			break
		}
	}
	for i, s := range states {
		if s != states[0] {
			w.fail("state", "%s has %x at index %d and %s has %x at index %d", w.nodes[i].id, s.hash[:4], s.index, w.nodes[0].id, states[0].hash[:4], states[0].index)
		}
	}
}
