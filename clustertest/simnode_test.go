package clustertest_test

import (
	"bytes"
	"context"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

// machine is one machine: what survives the death of its process.
type machine struct {
	index int
	id    string
	disk  *disk
	snaps *simSnapshots
	proc  atomic.Pointer[process] // nil: down
	slow  atomic.Int64            // up to how much longer its messages take
}

func (n *machine) running() *process { return n.proc.Load() }

// process is one run of a node: the real state machine, keeper and raft, and of
// package cluster as much as the keeper needs.
type process struct {
	w      *world
	n      *machine
	ctx    context.Context
	cancel context.CancelFunc
	dead   chan struct{}
	stop   barrier // shut: SIGSTOP
	stall  barrier // shut: the keeper does not run, and raft does

	state    *fsm.FSM
	keeper   *lease.Keeper
	raft     *raft.Raft
	trans    *simTransport
	handlers map[string]handlerFunc
	session  atomic.Pointer[simSession]
	leading  chan struct{} // full while a session's work runs
}

type handlerFunc = func(ctx context.Context, from string, body []byte) ([]byte, error)

type simSession struct{ term uint64 }

func (p *process) isDead() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// start starts a process on a machine, with an empty memory.
func (w *world) start(n *machine) {
	p := &process{w: w, n: n, dead: make(chan struct{}), handlers: map[string]handlerFunc{}, leading: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(w.ctx)
	var err error
	if p.state, err = fsm.New(fsm.Config{Listeners: []fsm.Listener{p}}); err != nil {
		panic(err)
	}
	deps := lease.Deps{State: simState{p.state}, Log: p, Raft: p, Peers: p, Now: p.now, Logger: slog.New(&simLog{p: p}), Switches: w.governor}
	if w.faulty.raft != nil {
		deps.Raft = w.faulty.raft(p)
	}
	if w.faulty.peers != nil {
		deps.Peers = w.faulty.peers(p)
	}
	if p.keeper, err = lease.New(lease.Config{}, deps); err != nil {
		panic(err)
	}
	p.handlers["propose"] = p.handlePropose
	p.trans = newSimTransport(p)
	n.disk.hang.open()
	n.disk.enter(p)
	w.born(n)
	if p.raft, err = raft.NewRaft(w.raftConfig(p), simFSM{p}, n.disk, n.disk, n.snaps, p.trans); err != nil {
		panic(err)
	}
	n.proc.Store(p)
	w.wg.Go(func() { _ = p.keeper.Run(p.ctx) })
	w.wg.Go(p.watchLeadership)
}

// kill ends processes as SIGKILL does, all at once. Only the script's own
// goroutine may call it.
func (w *world) kill(ns ...*machine) {
	var ps []*process
	for _, n := range ns {
		if p := n.proc.Swap(nil); p != nil {
			ps = append(ps, p)
			w.down(n)
			close(p.dead)
			p.cancel()
		}
	}
	// Nothing reaches them any more, so this lets their state machines finish what
	// was committed: raft never answers for what lies in front of one at shutdown.
	synctest.Wait()
	for _, p := range ps {
		if err := p.raft.Shutdown().Error(); err != nil {
			w.t.Errorf("raft of %s does not end: %v", p.n.id, err)
		}
	}
}

// raftConfig is the default profile of package cluster.
func (w *world) raftConfig(p *process) *raft.Config {
	c := raft.DefaultConfig()
	c.ProtocolVersion = 3
	c.LocalID = raft.ServerID(p.n.id)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 400*time.Millisecond
	c.MaxAppendEntries = 256
	c.CommitTimeout = 10 * time.Millisecond
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = time.Minute, 8192, 10240
	if w.snapshots {
		c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = 2*time.Second, 16, 4
	}
	c.Logger = &raftGate{hclog.NewNullLogger(), p}
	return c
}

// raftGate stops raft's main loop along with its process: before it gives up a
// leader, or leading, it says so.
type raftGate struct {
	hclog.Logger
	p *process
}

func (g *raftGate) Debug(string, ...any) { g.p.stop.pass(g.p.dead) }
func (g *raftGate) Info(string, ...any)  { g.p.stop.pass(g.p.dead) }
func (g *raftGate) Warn(string, ...any)  { g.p.stop.pass(g.p.dead) }
func (g *raftGate) Error(string, ...any) { g.p.stop.pass(g.p.dead) }

// disk is raft's store: it takes its time, stops with its process, and hangs.
type disk struct {
	*raft.InmemStore
	p    atomic.Pointer[process]
	hang barrier
}

func (d *disk) enter(p *process) { d.p.Store(p) }

func (d *disk) write() {
	p := d.p.Load()
	if p == nil {
		return // being founded
	}
	p.stop.pass(p.dead)
	d.hang.pass(p.dead)
	simSleep(p.dead, rand.N(time.Millisecond))
}

func (d *disk) StoreLog(l *raft.Log) error           { d.write(); return d.InmemStore.StoreLog(l) }
func (d *disk) StoreLogs(l []*raft.Log) error        { d.write(); return d.InmemStore.StoreLogs(l) }
func (d *disk) Set(k, v []byte) error                { d.write(); return d.InmemStore.Set(k, v) }
func (d *disk) SetUint64(k []byte, v uint64) error   { d.write(); return d.InmemStore.SetUint64(k, v) }
func (d *disk) DeleteRange(first, last uint64) error { return d.InmemStore.DeleteRange(first, last) }

// simSnapshots keeps the latest snapshot that was written to its end. (raft's own
// in-memory store shows one that is being written.)
type simSnapshots struct {
	mu     sync.Mutex
	latest *simSnapshot
}

type simSnapshot struct {
	bytes.Buffer
	store *simSnapshots
	meta  raft.SnapshotMeta
}

func (s *simSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &simSnapshot{store: s, meta: raft.SnapshotMeta{
		Version: v, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term, Configuration: c, ConfigurationIndex: at,
	}}, nil
}

func (s *simSnapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return nil, nil
	}
	meta := s.latest.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

func (s *simSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil || s.latest.meta.ID != id {
		return nil, nil, errors.New("no such snapshot")
	}
	meta := s.latest.meta
	return &meta, io.NopCloser(bytes.NewReader(s.latest.Bytes())), nil
}

func (s *simSnapshot) ID() string    { return s.meta.ID }
func (s *simSnapshot) Cancel() error { return nil }
func (s *simSnapshot) Close() error {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.meta.Size = int64(s.Len())
	s.store.latest = s
	return nil
}

// simFSM stops with its process.
type simFSM struct{ p *process }

func (f simFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }
func (f simFSM) ApplyBatch(ls []*raft.Log) []any {
	f.p.stop.pass(f.p.dead)
	return f.p.state.ApplyBatch(ls)
}
func (f simFSM) Snapshot() (raft.FSMSnapshot, error) { return f.p.state.Snapshot() }
func (f simFSM) Restore(r io.ReadCloser) error       { return f.p.state.Restore(r) }

// now is the keeper's clock: it blocks while the process is stopped.
func (p *process) now() time.Time {
	if p.w.faulty.now != nil {
		return p.w.faulty.now(p)
	}
	p.stop.pass(p.dead)
	p.stall.pass(p.dead)
	return time.Now()
}

// watchLeadership opens and ends sessions as package cluster does.
func (p *process) watchLeadership() {
	end := func() {}
	defer func() { end() }()
	for {
		select {
		case <-p.ctx.Done():
			return
		case led := <-p.raft.LeaderCh():
			p.stop.pass(p.dead)
			end()
			end = func() {}
			if led {
				ctx, cancel := context.WithCancel(p.ctx)
				end = func() {
					cancel()
					p.session.Store(nil)
				}
				p.w.wg.Go(func() { p.lead(ctx) })
			}
		}
	}
}

func (p *process) lead(ctx context.Context) {
	for {
		out, err := p.ship(ctx, [][]byte{p.state.EpochOp("sim")})
		if err == nil {
			s := &simSession{term: binary.BigEndian.Uint64(out[0])}
			if p.session.Store(s); ctx.Err() != nil {
				p.session.CompareAndSwap(s, nil)
				return
			}
			select { // sessions do not overlap
			case p.leading <- struct{}{}:
				p.w.opened(p, s.term)
				p.keeper.Lead(ctx, s.term)
				<-p.leading
			case <-ctx.Done():
			}
			return
		}
		if !simSleep(ctx.Done(), 100*time.Millisecond) {
			return
		}
	}
}

// ship puts operations into one entry of raft's and waits for their results.
func (p *process) ship(ctx context.Context, ops [][]byte) ([][]byte, error) {
	p.stop.pass(p.dead)
	f := p.raft.ApplyLog(raft.Log{Data: p.state.Pack(ops, time.Now())}, 500*time.Millisecond)
	done := make(chan error, 1)
	p.w.wg.Go(func() { done <- f.Error() })
	select {
	case err := <-done:
		p.stop.pass(p.dead)
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			p.w.refused()
		}
		switch {
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			return nil, muster.Errorf(muster.CodeNoLeader, "not applied").WithCause(err)
		case err != nil:
			return nil, muster.Errorf(muster.CodeOutcomeUnknown, "perhaps applied").WithCause(err)
		}
	case <-ctx.Done():
		return nil, muster.Errorf(muster.CodeOutcomeUnknown, "perhaps applied").WithCause(ctx.Err())
	}
	var out [][]byte
	for _, r := range f.Response().([]encoding.BinaryAppender) {
		b, err := r.AppendBinary(nil)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// proposeAs has the leader's own decisions applied, in its session or not at all.
func (p *process) proposeAs(ctx context.Context, term uint64, ops [][]byte) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, muster.DefaultTimeout)
	defer cancel()
	if s := p.session.Load(); s == nil || s.term != term {
		return nil, muster.Errorf(muster.CodeNoLeader, "no session of term %d", term)
	}
	return p.ship(ctx, ops)
}

// propose has a client's operation applied through whichever node leads.
func (p *process) propose(ctx context.Context, op []byte) (fsm.Result, error) {
	b, err := p.handlePropose(ctx, p.n.id, op)
	if errors.Is(err, muster.CodeNoLeader) {
		leader, _ := p.Leader()
		if leader == "" || leader == p.n.id {
			return fsm.Result{}, err
		}
		b, err = p.Call(ctx, leader, "propose", op)
	}
	if err != nil {
		return fsm.Result{}, err
	}
	return fsm.DecodeResult(b)
}

func (p *process) handlePropose(ctx context.Context, _ string, op []byte) ([]byte, error) {
	if p.session.Load() == nil || ctx.Err() != nil {
		return nil, muster.Errorf(muster.CodeNoLeader, "no session")
	}
	out, err := p.ship(ctx, [][]byte{op})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}
