package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// gather is how long a feed waits for more services before it opens its stream
	// again for the new ones.
	gather = 20 * time.Millisecond
	// The pause after no node gave a stream: at most this long, the first time and the
	// last.
	feedFirst = 200 * time.Millisecond
	feedMost  = 4 * time.Second
	// crowd is over how long the clients of a node that fails spread their way to the
	// next.
	crowd = 100 * time.Millisecond
	// pollingFor is how long polls stand in for a stream that was refused.
	pollingFor = time.Minute
)

// feeds are the feeds of a client, one for each namespace that is watched.
type feeds struct {
	mu sync.Mutex
	by map[string]*feed // guarded by mu
}

func (f *feeds) of(c *Client, namespace string) *feed {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by == nil {
		f.by = map[string]*feed{}
	}
	if f.by[namespace] == nil {
		f.by[namespace] = &feed{
			c: c, namespace: namespace, entries: map[string]*entry{}, unsaved: map[*entry]bool{}, save: make(chan struct{}, 1),
		}
	}
	return f.by[namespace]
}

// feed keeps the cache of all watched services of a namespace current. One goroutine
// does, from the first watch to the last.
type feed struct {
	c         *Client
	namespace string

	mu      sync.Mutex
	entries map[string]*entry  // guarded by mu: by service
	end     context.CancelFunc // guarded by mu: of the goroutine; nil while there is none
	current *opening           // guarded by mu: nil while nothing is open
	now     WatchStatus        // guarded by mu
	unsaved map[*entry]bool    // guarded by mu
	save    chan struct{}      // room for one: there is something to save
}

// opening is a stream, or the polls, that will be opened again when other services
// are watched.
type opening struct {
	interrupt context.CancelCauseFunc
}

// position is where a feed is in the history of a cluster.
type position struct {
	cluster string
	// cursor is the index from which a stream goes on; 0: from the beginning.
	cursor uint64
	// anew says that what comes next is of another history, and that indexes may be
	// lower than before.
	anew bool
}

// Why what is open is interrupted.
var (
	errRenewed = errors.New("other services are watched")
	errStale   = errors.New("the node is cut off from the leader")
	errGoodbye = errors.New("the node is shutting down")
	errQuiet   = errors.New("nothing came from the node, not even a keep-alive")
)

// add takes a watch in.
func (f *feed) add(ctx context.Context, service string, w *Watch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entries[service]
	if e == nil {
		e = newEntry(muster.ServiceKey{Namespace: f.namespace, Service: service}, f.c.cfg.HoldExpired, f.mark)
	}
	w.entry = e
	if err := f.c.start(ctx, w.run); err != nil {
		return err
	}
	e.refs++
	if e.refs > 1 {
		return nil
	}
	f.entries[service] = e
	if f.end != nil {
		f.interrupt()
		return nil
	}
	ctx, f.end = context.WithCancel(context.WithoutCancel(ctx))
	f.now = WatchStatus{}
	f.c.running.Go(func() { f.run(ctx) })
	if f.c.cfg.SnapshotDir != "" {
		f.c.running.Go(func() { f.saving(ctx) })
	}
	return nil
}

// remove lets a watch go.
func (f *feed) remove(e *entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.refs--; e.refs > 0 {
		return
	}
	delete(f.entries, e.key.Service)
	e.stop()
	if len(f.entries) == 0 {
		f.end()
		f.end = nil
		return
	}
	f.interrupt()
}

// interrupt has what is open opened again. It is called with mu held.
func (f *feed) interrupt() {
	if f.current != nil {
		f.current.interrupt(errRenewed)
	}
}

// watched are the services that are watched.
func (f *feed) watched() map[string]*entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := make(map[string]*entry, len(f.entries))
	for name, e := range f.entries {
		m[name] = e
	}
	return m
}

func (f *feed) status() WatchStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *feed) connected(stale time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = WatchStatus{Connected: stale == 0, Stale: stale}
	if stale > 0 {
		f.now.Err = errStale
	}
}

func (f *feed) away(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = WatchStatus{Err: err}
}

// opened lets add and remove interrupt what is open: a context that ends then. Where
// they changed something since watched was asked, it has ended already.
func (f *feed) opened(ctx context.Context, watched map[string]*entry) (context.Context, func()) {
	ctx, interrupt := context.WithCancelCause(ctx)
	o := &opening{interrupt}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = o
	same := len(watched) == len(f.entries)
	for name, e := range watched {
		same = same && f.entries[name] == e
	}
	if !same {
		interrupt(errRenewed)
	}
	return ctx, func() {
		f.mu.Lock()
		if f.current == o { // and not that of the goroutine that came after this one
			f.current = nil
		}
		f.mu.Unlock()
		interrupt(nil)
	}
}

// run feeds the entries until ctx ends.
func (f *feed) run(ctx context.Context) {
	pauses := delays(feedFirst, feedMost)
	var at position
	var polling time.Time
	for ctx.Err() == nil {
		if time.Now().Before(polling) {
			if f.poll(ctx, polling); ctx.Err() == nil {
				rest(ctx, nil, gather)
			}
			continue
		}
		nd := f.c.nodes.order(time.Now())[0]
		began := time.Now()
		err := f.stream(ctx, nd, &at)
		if time.Since(began) > feedMost {
			pauses.Reset()
		}
		switch e, coded := errors.AsType[*muster.Error](err); {
		case ctx.Err() != nil:
		case errors.Is(err, errRenewed):
			rest(ctx, nil, gather)
		case coded && e.Code == muster.CodeCursorGone:
			f.c.cfg.Logger.Warn("the registry's history is another one: watches begin anew", "node", nd.base)
			at = position{anew: true}
		case coded && (failure{err: err}).remedy(true) == giveUp, coded && e.Code == muster.CodeRateLimited:
			f.c.cfg.Logger.Warn("no stream is given: long polls stand in", "node", nd.base, "err", err)
			polling = time.Now().Add(pollingFor)
		default:
			f.c.nodes.failed(nd, retryAfterOf(err), err)
			f.away(err)
			if other, _ := f.c.nodes.another(nd, time.Now()); other != nil {
				rest(ctx, nil, rand.N(crowd))
				continue
			}
			f.recall()
			rest(ctx, nil, min(pauses.NextBackOff(), feedMost))
		}
	}
}
