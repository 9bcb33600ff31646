package lease

import (
	"context"
	"sync"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// laneDepth is the most heartbeats that wait in one lane.
const laneDepth = 1 << 18

// lane passes heartbeats to the leader. It has laneCalls workers, each with one
// call in flight: the next call carries whatever has gathered meanwhile, so there
// is no timer, no delay when idle and ever larger batches under load. The slow
// lane carries what waits for an expiry in flight, so that nobody else does.
type lane struct {
	k     *Keeper
	wait  bool
	ready chan struct{} // a token while something waits

	mu      sync.Mutex // guards all below
	waiting []*parcel
	depth   int
	closed  bool
	calls   map[*laneCall]struct{}
}

const laneCalls = 2

// parcel is what one caller wants passed on.
type parcel struct {
	ctx     context.Context
	names   []Name
	results []Result
	stretch int
	err     error
	done    chan struct{}
}

type laneCall struct {
	leader string
	cancel context.CancelFunc
}

func newLane(k *Keeper, wait bool) *lane {
	return &lane{k: k, wait: wait, ready: make(chan struct{}, 1), calls: map[*laneCall]struct{}{}}
}

// submit passes names on and waits for the answer.
func (l *lane) submit(ctx context.Context, names []Name) ([]Result, int, error) {
	p := &parcel{ctx: ctx, names: names, done: make(chan struct{})}
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return nil, 0, errStopping()
	case l.depth+len(names) > laneDepth:
		l.mu.Unlock()
		return nil, 0, muster.Errorf(muster.CodeOverloaded, "too many heartbeats wait for the leader").WithRetryAfter(time.Second)
	}
	l.waiting = append(l.waiting, p)
	l.depth += len(names)
	l.mu.Unlock()
	signal(l.ready)
	select {
	case <-p.done:
		return p.results, p.stretch, p.err
	case <-ctx.Done():
		return nil, 0, errNoLeader().WithCause(context.Cause(ctx))
	}
}

func errStopping() *muster.Error {
	return muster.Errorf(muster.CodeShuttingDown, "this node is stopping").WithHint("beat at another node")
}

// signal leaves a token, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// work runs one worker until ctx ends.
func (l *lane) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			l.mu.Lock()
			l.closed = true
			l.mu.Unlock()
			l.refuse(l.take(laneDepth), errStopping())
			return
		case <-l.ready:
		}
		if parcels := l.take(maxBeat); len(parcels) > 0 {
			l.deliver(ctx, parcels)
		}
	}
}

// take takes whole parcels of up to most names whose callers still wait.
func (l *lane) take(most int) []*parcel {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*parcel
	n := 0
	for n < len(l.waiting) && most >= len(l.waiting[n].names) {
		p := l.waiting[n]
		n++
		l.depth -= len(p.names)
		if p.ctx.Err() == nil {
			most -= len(p.names)
			out = append(out, p)
		}
	}
	rest := copy(l.waiting, l.waiting[n:])
	clear(l.waiting[rest:])
	if l.waiting = l.waiting[:rest]; rest > 0 {
		signal(l.ready)
	}
	return out
}

// deliver passes parcels on and hands out the answers.
func (l *lane) deliver(ctx context.Context, parcels []*parcel) {
	m := beatMsg{wait: l.wait, shed: l.k.takeShed()}
	for _, p := range parcels {
		m.names = append(m.names, p.names...)
	}
	ack, err := l.call(ctx, &m)
	if err != nil {
		l.k.refused.Add(m.shed) // not told yet
		l.refuse(parcels, asNoLeader(err))
		return
	}
	for _, p := range parcels {
		p.results, ack.verdicts = ack.verdicts[:len(p.names):len(p.names)], ack.verdicts[len(p.names):]
		p.stretch = ack.stretch
		close(p.done)
	}
}

func (l *lane) refuse(parcels []*parcel, err error) {
	for _, p := range parcels {
		p.err = err
		close(p.done)
	}
}

func (l *lane) call(ctx context.Context, m *beatMsg) (ack beatAck, err error) {
	leader, _ := l.k.raft.Leader()
	if leader == "" || leader == l.k.raft.ID() {
		return ack, errNoLeader()
	}
	ctx, cancel := context.WithTimeout(ctx, l.k.cfg.CallTimeout)
	defer cancel()
	c := &laneCall{leader, cancel}
	l.mu.Lock()
	l.calls[c] = struct{}{}
	l.mu.Unlock()
	body, err := l.k.peers.Call(ctx, leader, methodBeat, m.append(nil))
	l.mu.Lock()
	delete(l.calls, c)
	l.mu.Unlock()
	if err == nil {
		err = ack.parse(body)
	}
	if err == nil && len(ack.verdicts) != len(m.names) {
		err = wire.ErrMalformed
	}
	return ack, err
}

// follow ends calls to a node that is not the leader any more: one that hangs
// would keep the lane from its successor.
func (l *lane) follow(leader string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.calls {
		if leader != "" && c.leader != leader {
			c.cancel()
		}
	}
}
