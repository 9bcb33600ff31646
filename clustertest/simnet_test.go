package clustertest_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// The network of the simulation. A message takes a moment; one that meets a cut is
// lost, and whoever waits for it waits until his patience ends; one to a process
// that is stopped lies in its socket and is read when it runs again, even if
// nobody waits for the answer any more; one to a process that has died is refused.

const raftPatience = 2 * time.Second // of raft for an answer, as in production

var (
	errSimLost    = errors.New("no answer")
	errSimRefused = errors.New("connection refused")
)

// barrier stops whoever comes to it while it is shut.
type barrier struct{ shut atomic.Pointer[chan struct{}] }

func (b *barrier) close() {
	ch := make(chan struct{})
	b.shut.CompareAndSwap(nil, &ch)
}

func (b *barrier) open() {
	if ch := b.shut.Swap(nil); ch != nil {
		close(*ch)
	}
}

func (b *barrier) isShut() bool { return b.shut.Load() != nil }

// pass waits while the barrier is shut, or until dead is closed. A process that
// runs again does not do all it has to do at once: everybody goes on a little
// later, in any order.
func (b *barrier) pass(dead <-chan struct{}) {
	for {
		ch := b.shut.Load()
		if ch == nil {
			return
		}
		select {
		case <-*ch:
		case <-dead:
			return
		}
		simSleep(dead, rand.N(20*time.Millisecond))
	}
}

// simSleep sleeps d of virtual time; false: done was closed first.
func simSleep(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-done:
		return false
	}
}

// link is one direction between two nodes.
type link struct{ from, to int }

func (w *world) linked(from, to int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cuts[link{from, to}] == 0
}

// carry takes a message from one node to another and returns the process that
// runs there. done ends the waiting for one that is lost, as does a connection
// that finds out, once the link is mended, that it is broken.
func (w *world) carry(done <-chan struct{}, from, to int) (*process, error) {
	delay := 100*time.Microsecond + rand.N(400*time.Microsecond)
	if slow := time.Duration(w.nodes[from].slow.Load() + w.nodes[to].slow.Load()); slow > 0 {
		delay += rand.N(slow)
	}
	if !simSleep(done, delay) {
		return nil, errSimLost
	}
	if !w.linked(from, to) {
		for simSleep(done, 50*time.Millisecond+rand.N(100*time.Millisecond)) && !w.linked(from, to) {
		}
		return nil, errSimLost
	}
	p := w.nodes[to].running()
	if p == nil {
		return nil, errSimRefused
	}
	return p, nil
}

// Call implements lease.Peers.
func (p *process) Call(ctx context.Context, to, method string, body []byte) ([]byte, error) {
	p.stop.pass(p.dead)
	// Whoever dies has his calls cancelled by what he hands in as ctx.
	peer := p.w.index(to)
	q, err := p.w.carry(ctx.Done(), p.n.index, peer)
	if err != nil {
		return nil, err
	}
	type answer struct {
		body []byte
		err  error
	}
	got := make(chan answer, 1)
	p.w.wg.Go(func() { // it goes on when the caller has given up
		q.stop.pass(q.dead)
		b, err := q.handler(method)(ctx, p.n.id, slices.Clone(body))
		q.stop.pass(q.dead)
		got <- answer{b, err}
	})
	select {
	case a := <-got:
		if _, err := p.w.carry(ctx.Done(), peer, p.n.index); err != nil {
			return nil, err
		}
		p.stop.pass(p.dead)
		if q.isDead() {
			return nil, errSimRefused
		}
		return a.body, a.err
	case <-q.dead:
		return nil, errSimRefused
	case <-ctx.Done():
		return nil, errSimLost
	}
}

// simTransport is raft's in-memory transport over the network above. As in
// production heartbeats go through the main loop, and nothing is pipelined.
type simTransport struct {
	*raft.InmemTransport
	p    *process
	rpcs chan raft.RPC
}

var _ raft.WithPreVote = (*simTransport)(nil)

func newSimTransport(p *process) *simTransport {
	_, inner := raft.NewInmemTransport(raft.ServerAddress(p.n.id))
	return &simTransport{InmemTransport: inner, p: p, rpcs: make(chan raft.RPC)}
}

// Consumer implements raft.Transport.
func (t *simTransport) Consumer() <-chan raft.RPC { return t.rpcs }

// SetHeartbeatHandler implements raft.Transport.
func (t *simTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline implements raft.Transport.
func (t *simTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (t *simTransport) AppendEntries(_ raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return rpc(t.p, to, args, nil, resp)
}

// RequestVote implements raft.Transport.
func (t *simTransport) RequestVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return rpc(t.p, to, args, nil, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *simTransport) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return rpc(t.p, to, args, nil, resp)
}

// InstallSnapshot implements raft.Transport.
func (t *simTransport) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return rpc(t.p, to, args, data, resp)
}

// TimeoutNow implements raft.Transport.
func (t *simTransport) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return rpc(t.p, to, args, nil, resp)
}

// rpc sends a request of raft's and waits for the answer.
func rpc[T any](p *process, to raft.ServerAddress, args any, data io.Reader, resp *T) error {
	p.stop.pass(p.dead)
	if p.isDead() {
		return raft.ErrTransportShutdown
	}
	// done ends with our patience, or with us.
	done := make(chan struct{})
	defer time.AfterFunc(raftPatience, sync.OnceFunc(func() { close(done) })).Stop()
	peer := p.w.index(string(to))
	q, err := p.w.carry(done, p.n.index, peer)
	if err != nil {
		return err
	}
	// The peer's copy of the request outlives our patience.
	answers := make(chan raft.RPCResponse, 1)
	r := raft.RPC{Command: args, Reader: data, RespChan: answers}
	if !q.stop.isShut() {
		err = q.receive(done, r)
	} else {
		p.w.wg.Go(func() {
			q.stop.pass(q.dead)
			_ = q.receive(q.dead, r)
		})
	}
	if err != nil {
		return err
	}
	select {
	case a := <-answers:
		q.stop.pass(done) // an answer leaves when its process runs
		if _, err := p.w.carry(done, peer, p.n.index); err != nil {
			return err
		}
		p.stop.pass(p.dead)
		if a.Error != nil {
			return a.Error
		}
		*resp = *a.Response.(*T)
		return nil
	case <-q.dead:
		return errSimRefused
	case <-p.dead:
		return raft.ErrTransportShutdown
	case <-done:
		return errSimLost
	}
}

// receive gives raft a request.
func (p *process) receive(done <-chan struct{}, r raft.RPC) error {
	select {
	case p.trans.rpcs <- r:
		return nil
	case <-p.dead:
		return errSimRefused
	case <-done:
		return errSimLost
	}
}
