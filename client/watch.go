package client

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"time"

	"github.com/muster-registry/muster"
)

// Watch is a service that is followed: its view is in memory, and as current as the
// registry's streams are. It is safe for concurrent use.
type Watch struct {
	feed  *feed
	entry *entry
	over  chan struct{} // closed when the watch has ended
}

// WatchStatus is how far a watch is to be trusted.
type WatchStatus struct {
	// Connected: a node feeds it, and was itself current when it was last heard.
	Connected bool
	// Old: the view was read from Config.SnapshotDir, and no node has shown another.
	Old bool
	// Held: the instances shown are not, or no longer, those the registry lists.
	Held Held
	// Stale is how old the node said its state was; 0 where it is current.
	Stale time.Duration
	// Err is why it is not connected.
	Err error
}

// Watch follows a service until ctx ends or the client is closed. In applies.
//
// All watches of a namespace share one stream: a node keeps a connection, and a
// place of the streams it allows an address, for a process and not for each service
// that the process calls. It goes on from one node to the next where it ended, and
// becomes long polls while no node gives one.
//
// A list of instances that is not empty is replaced by an empty one only when the
// registry says that the last one was deregistered; see Held for the other cases.
// While no node answers, what was known last stays.
func (c *Client) Watch(ctx context.Context, service string, opts ...Option) (*Watch, error) {
	name, err := muster.CleanService(service)
	if err != nil {
		return nil, err
	}
	namespace := c.cfg.Namespace
	r := c.newCall(http.MethodGet, "", opts)
	if len(r.header) > 0 || len(r.query) > 1 || len(r.query) == 1 && !r.query.Has("namespace") {
		return nil, muster.Errorf(muster.CodeConflictingField, "a watch takes no option but In").
			WithHint("it shows the whole service; narrow what you pick from by PickBy.Where")
	}
	if r.query.Has("namespace") {
		if namespace, err = muster.CleanNamespace(r.query.Get("namespace")); err != nil {
			return nil, err
		}
	}
	w := &Watch{feed: c.feeds.of(c, namespace), over: make(chan struct{})}
	if err := w.feed.add(ctx, name, w); err != nil {
		return nil, err
	}
	return w, nil
}

// run waits for the end of the watch.
func (w *Watch) run(ctx context.Context) {
	defer close(w.over)
	<-ctx.Done()
	w.feed.remove(w.entry)
}

// View is what is known of the service now; nil before anything is. It is shared
// and must not be changed.
func (w *Watch) View() *muster.View {
	if p := w.entry.shown.Load(); p != nil {
		return p.view
	}
	return nil
}

// Status is how far the view is to be trusted now.
func (w *Watch) Status() WatchStatus {
	s := w.feed.status()
	if p := w.entry.shown.Load(); p != nil {
		s.Old, s.Held = p.old, p.held
	}
	return s
}

// Await waits until there is a view and returns it. It may be an old one, see
// Config.SnapshotDir, or an empty one.
func (w *Watch) Await(ctx context.Context) (*muster.View, error) {
	select {
	case <-w.entry.first:
		return w.View(), nil
	default:
	}
	select {
	case <-w.entry.first:
		return w.View(), nil
	case <-w.over:
		return nil, muster.Errorf(muster.CodeShuttingDown, "the watch is over")
	case <-ctx.Done():
		why := w.feed.status().Err
		return nil, muster.Errorf(CodeUnreachable, "no node told of service %s in time", w.entry.key.Service).
			WithHint("is the registry running, and are these the addresses of its API?").WithCause(errors.Join(context.Cause(ctx), why))
	}
}

// Next waits until the view is another than last, which may be nil, and returns it.
// Changes that come quickly one after the other may be seen as one. The error is
// ctx's, or shutting_down when the watch is over.
func (w *Watch) Next(ctx context.Context, last *muster.View) (*muster.View, error) {
	if last == nil {
		return w.Await(ctx)
	}
	for {
		p := w.entry.shown.Load()
		if p.view != last {
			return p.view, nil
		}
		select {
		case <-p.replaced:
		case <-w.over:
			return nil, muster.Errorf(muster.CodeShuttingDown, "the watch is over")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Views yields the view as it is now and then every change, until ctx or the watch
// ends.
func (w *Watch) Views(ctx context.Context) iter.Seq[*muster.View] {
	return func(yield func(*muster.View) bool) {
		var last *muster.View
		for {
			v, err := w.Next(ctx, last)
			if err != nil || !yield(v) {
				return
			}
			last = v
		}
	}
}
