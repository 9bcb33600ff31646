package clustertest_test

import (
	"context"
	"encoding"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

// crowd is a registry without disk, network and raft: one real state machine, whose
// log has no one to agree on, and the real keepers of three nodes, which call each
// other's handlers with the bytes that a network would carry. What it costs is what
// the state and the leases cost. The nodes of a cluster have a state machine each;
// here they share one, so that its memory is measured once.
type crowd struct {
	t       *testing.T
	state   *fsm.FSM
	nodes   []*crowdNode
	term    atomic.Uint64
	leader  atomic.Pointer[crowdNode]
	traffic map[string]*atomic.Int64 // bytes both ways, by method; fixed after newCrowd
	gone    atomic.Int64             // leases that ended

	mu      sync.Mutex // guards the log: one entry at a time, as raft does
	index   uint64
	slowest time.Duration // the longest entry
}

// crowdNode is one of its nodes: lease.Raft, lease.Log and lease.Peers of its keeper.
type crowdNode struct {
	c        *crowd
	id       string
	keeper   *lease.Keeper
	handlers map[string]handlerFunc
	took     chan takenOver // the end of each gathering
}

// takenOver is what a keeper says of a gathering.
type takenOver struct{ kept, full int64 }

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t, traffic: map[string]*atomic.Int64{}}
	for _, m := range []string{"renew", "gather", "heartbeat", "lease"} {
		c.traffic[m] = new(atomic.Int64)
	}
	var err error
	if c.state, err = fsm.New(fsm.Config{Listeners: []fsm.Listener{c}}); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		node := &crowdNode{c: c, id: fmt.Sprint("n", n+1), handlers: map[string]handlerFunc{}, took: make(chan takenOver, 8)}
		c.nodes = append(c.nodes, node)
		node.keeper, err = lease.New(lease.Config{}, lease.Deps{
			State: simState{c.state}, Log: node, Raft: node, Peers: node, Logger: slog.New(crowdLog{node}),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// lead has a node lead in a term of its own until the returned function is called.
func (c *crowd) lead(ctx context.Context, n *crowdNode, wg *sync.WaitGroup) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	c.term.Add(1)
	c.leader.Store(n)
	c.commit(fsm.Epoch{ClusterID: "crowd"})
	wg.Go(func() { n.keeper.Lead(ctx, c.term.Load()) })
	return stop
}

// apply makes an entry of operations, applies it, and returns their results.
func (c *crowd) apply(ops ...fsm.Op) []fsm.Result {
	out := make([]fsm.Result, len(ops))
	for n, r := range c.commit(ops...) {
		b, err := r.AppendBinary(nil)
		if err == nil {
			out[n], err = fsm.DecodeResult(b)
		}
		if err != nil {
			c.t.Error(err)
		}
	}
	return out
}

// commit makes an entry of operations and applies it, as every node does with what was
// committed.
func (c *crowd) commit(ops ...fsm.Op) []encoding.BinaryAppender {
	encoded := make([][]byte, len(ops))
	for n, op := range ops {
		encoded[n] = fsm.Encode(op)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	began := realTime()
	c.index++
	answer := c.state.Apply(&raft.Log{Index: c.index, Term: c.term.Load(), Type: raft.LogCommand, Data: c.state.Pack(encoded, time.Now())})
	c.slowest = max(c.slowest, realTime()-began)
	results, ok := answer.([]encoding.BinaryAppender)
	if !ok {
		c.t.Errorf("an entry was answered with %v", answer)
	}
	return results
}

// Applied implements fsm.Listener.
func (c *crowd) Applied(ch fsm.Changes) {
	changes := simChanges(ch)
	for _, l := range changes.Leases {
		if l.Gone {
			c.gone.Add(1)
		}
	}
	for _, n := range c.nodes {
		n.keeper.Observe(changes)
	}
}

// takeSlowest is the longest that an entry took since it was asked last.
func (c *crowd) takeSlowest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.slowest
	c.slowest = 0
	return d
}

// ID implements lease.Raft.
func (n *crowdNode) ID() string { return n.id }

// CurrentTerm implements lease.Raft.
func (n *crowdNode) CurrentTerm() uint64 { return n.c.term.Load() }

// Voters implements lease.Raft.
func (n *crowdNode) Voters() []string { return []string{"n1", "n2", "n3"} }

// Leader implements lease.Raft.
func (n *crowdNode) Leader() (id, apiAddr string) {
	if l := n.c.leader.Load(); l != nil {
		return l.id, ""
	}
	return "", ""
}

// NoteMajority implements lease.Raft.
func (n *crowdNode) NoteMajority(uint64, time.Time) {}

// Decide implements lease.Log.
func (n *crowdNode) Decide(_ context.Context, term uint64, d lease.Decision) (uint64, error) {
	op := simDecision(n.id, term, d)
	if op == nil {
		return 0, muster.Errorf(muster.CodeNoLeader, "the simulation has no %s", d.Kind)
	}
	r := n.c.apply(op)[0]
	if r.Dropped {
		return 0, muster.Errorf(muster.CodeNoLeader, "the decision was dropped: it was of term %d", term)
	}
	return r.Index, nil
}

// Handle implements lease.Peers.
func (n *crowdNode) Handle(method string, fn func(context.Context, string, []byte) ([]byte, error)) {
	n.handlers[method] = fn
}

// Call implements lease.Peers.
func (n *crowdNode) Call(ctx context.Context, to, method string, body []byte) ([]byte, error) {
	for _, other := range n.c.nodes {
		if other.id == to {
			answer, err := other.handlers[method](ctx, n.id, body)
			n.c.traffic[method].Add(int64(len(body) + len(answer)))
			return answer, err
		}
	}
	return nil, muster.Errorf(muster.CodeNoLeader, "there is no %s", to)
}

// crowdLog hears the end of a gathering.
type crowdLog struct{ n *crowdNode }

func (crowdLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (l crowdLog) WithAttrs([]slog.Attr) slog.Handler         { return l }
func (l crowdLog) WithGroup(string) slog.Handler              { return l }
func (l crowdLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "leases taken over" {
		return nil
	}
	var t takenOver
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "kept":
			t.kept = a.Value.Int64()
		case "full_ttl":
			t.full = a.Value.Int64()
		}
		return true
	})
	l.n.took <- t
	return nil
}

// cost is what something took of the machine: time of all its processors, and time on
// the wall. Neither is virtual.
type cost struct{ cpu, wall time.Duration }

func spent(fn func()) cost {
	wall, cpu := realTime(), cpuTime()
	fn()
	return cost{cpuTime() - cpu, realTime() - wall}
}

// per is the processor time for each of n.
func (c cost) per(n int) string {
	return fmt.Sprintf("%.2f µs", float64(c.cpu.Nanoseconds())/1e3/float64(max(n, 1)))
}

// realTime is a clock that goes on in a bubble, where time is virtual.
func realTime() time.Duration { return kernelClock(unix.CLOCK_MONOTONIC) }

// cpuTime is what this process has used of all processors.
func cpuTime() time.Duration { return kernelClock(unix.CLOCK_PROCESS_CPUTIME_ID) }

func kernelClock(id int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
