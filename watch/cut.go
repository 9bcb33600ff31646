package watch

import (
	"context"
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

// cutLife is how long a cut may be shared. Who gets an older one gets the changes
// since then right after it.
const cutLife = 100 * time.Millisecond

// cut is the views of some services, each exactly as it was at one index. It is
// immutable.
//
// The views of the state cannot be read at one moment, and some may be of a batch
// the Hub has not been told yet. So: note the Hub's index `from`; read the views,
// each of which then shows `from` or later; wait until the Hub was told of the
// newest of them, and of what the state may just have forgotten (its floor, asked
// last); and, with the ring at rest at index `at`, replace the view of every
// service that changed after `from` by the one the writer noted with its last
// change. A view that is not replaced had no event in (from, at], so that it shows
// `at` just as well. Where the ring no longer reaches back to `from`, or the state
// was replaced meanwhile, all begins again.
type cut struct {
	index uint64
	views []*muster.View
	taken time.Time
}

// cutTopics takes a cut of some services, in their order; one of which nothing is
// known is there as an empty view.
func (h *Hub) cutTopics(ctx context.Context, topics []*topic) (*cut, error) {
	for {
		from := h.told()
		views := make([]*muster.View, len(topics))
		newest := from
		for n, t := range topics {
			if v := h.state.View(t.key); v != nil {
				views[n], newest = v, max(newest, v.Index)
			}
		}
		floor := h.state.Floor()
		if err := h.await(ctx, newest, floor); err != nil {
			return nil, err
		}
		h.mu.RLock()
		at, whole := h.index, h.ring.floor <= from
		for n, t := range topics {
			if t.last > from {
				views[n] = t.view
			}
		}
		h.mu.RUnlock()
		if !whole {
			continue
		}
		for n, t := range topics {
			if views[n] == nil {
				// Settings made before a first registration are not in it: the state tells
				// them again with that.
				views[n] = &muster.View{
					Namespace: t.key.Namespace, Service: t.key.Service, Index: min(floor, at), Instances: []*muster.Instance{},
				}
			}
		}
		return &cut{index: at, views: views}, nil
	}
}

// cutGroup takes a cut of all services of a group, or shares one that was taken
// just now: it can be large, and many may start at once.
func (h *Hub) cutGroup(ctx context.Context, g *group) (*cut, error) {
	select {
	case g.cutting <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-g.cutting }()
	if c := g.cut.Load(); c != nil && time.Since(c.taken) < cutLife && h.reaches(c.index) {
		return c, nil
	}
	for {
		from := h.told()
		var views []*muster.View
		newest := from
		for v := range h.state.Views() {
			if g.key.match(v.Key()) {
				views = append(views, v)
				newest = max(newest, v.Index)
			}
		}
		if err := h.await(ctx, newest, h.state.Floor()); err != nil {
			return nil, err
		}
		changed := make(map[muster.ServiceKey]*muster.View)
		h.mu.RLock()
		at, whole := h.index, h.ring.floor <= from
		for _, e := range h.ring.entries[h.ring.after(from):] {
			for _, c := range e.changes {
				if g.key.match(c.key) {
					changed[c.key] = c.topic.view
				}
			}
		}
		h.mu.RUnlock()
		if whole {
			c := &cut{index: at, views: slices.Clip(patch(views, changed)), taken: time.Now()}
			h.share(g, c)
			return c, nil
		}
	}
}

// share lets others have a cut, until the next tick at the latest: it holds views
// that may be long replaced.
func (h *Hub) share(g *group, c *cut) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.cut.Swap(c) == nil {
		h.cuts = append(h.cuts, g)
	}
}

// unshare lets go of the cuts.
func (h *Hub) unshare() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.cuts {
		g.cut.Store(nil)
	}
	h.cuts = nil
}

// patch replaces views by others, in order; nil takes one out.
func patch(views []*muster.View, by map[muster.ServiceKey]*muster.View) []*muster.View {
	for k, v := range by {
		n, found := slices.BinarySearchFunc(views, k, func(v *muster.View, k muster.ServiceKey) int { return v.Key().Compare(k) })
		switch {
		case found && v != nil:
			views[n] = v
		case found:
			views = slices.Delete(views, n, n+1)
		case v != nil:
			views = slices.Insert(views, n, v)
		}
	}
	return views
}

// told is the index of the last batch the Hub was told.
func (h *Hub) told() uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.index
}

// reaches reports whether the ring holds all that came after index.
func (h *Hub) reaches(index uint64) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.ring.floor <= index
}

// await waits until the Hub was told of the batch of that index, and of that which
// raised the floor.
func (h *Hub) await(ctx context.Context, index, floor uint64) error {
	if floor > 1 { // else nothing was forgotten, and maybe nothing applied
		index = max(index, floor)
	}
	if h.told() >= index {
		return nil
	}
	for {
		h.mu.Lock()
		if h.index >= index {
			h.mu.Unlock()
			return nil
		}
		if h.moved == nil {
			h.moved = make(chan struct{})
		}
		moved := h.moved
		h.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// quiet reports whether nothing that s carries has changed since cursor, as far
// as this node has been told at the index returned. Then nothing was missed,
// though the ring may no longer show it.
func (h *Hub) quiet(s *Stream, cursor uint64) (at uint64, ok bool) {
	at = h.told()
	for _, t := range s.topics {
		if v := h.state.View(t.key); v != nil {
			if v.Index > cursor {
				return 0, false
			}
		} else if h.state.Floor() > cursor { // asked last: it rises before a view goes
			return 0, false
		}
	}
	if s.group == nil {
		return at, true
	}
	for v := range h.state.Views() {
		if v.Index > cursor && s.group.key.match(v.Key()) {
			return 0, false
		}
	}
	return at, h.state.Floor() <= cursor
}
