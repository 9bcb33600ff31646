package watch

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// audience is the streams that want the same changes: those of one service, or
// those of all services with one prefix.
type audience struct {
	// Guarded by Hub.mu.
	seats    int    // how many streams there are
	last     uint64 // index of the newest entry with a change for it
	lost     uint64 // no such entry above it was dropped from the ring
	gathered bool   // among those that are to be woken

	streams map[*Stream]struct{} // guarded by Hub.seats

	// The dispatcher's.
	woken time.Time
	due   time.Time // when it is to be woken; zero: it is not waiting for that
}

// join is called with mu and seats held, and so is leave.
func (a *audience) join(s *Stream) {
	if a.streams == nil {
		a.streams = make(map[*Stream]struct{}, 1)
	}
	a.streams[s] = struct{}{}
	a.seats++
}

func (a *audience) leave(s *Stream) {
	delete(a.streams, s)
	a.seats--
}

// topic is a service that has changes in the ring, or streams. Guarded by Hub.mu.
type topic struct {
	audience
	key     muster.ServiceKey
	changes []*change    // those in the ring, in order
	view    *muster.View // as of last, where there was a change; else of no meaning
	touched bool         // among Hub.touched
}

// after returns the first change above index that the ring holds.
func (t *topic) after(index uint64) *change {
	if t.last <= index {
		return nil
	}
	n, _ := slices.BinarySearchFunc(t.changes, index+1, func(c *change, index uint64) int {
		switch {
		case c.entry.index < index:
			return -1
		case c.entry.index > index:
			return 1
		}
		return 0
	})
	if n == len(t.changes) {
		return nil
	}
	return t.changes[n]
}

// groupKey names the services of a namespace whose names start with prefix.
type groupKey struct{ namespace, prefix string }

func (k groupKey) match(s muster.ServiceKey) bool {
	return s.Namespace == k.namespace && strings.HasPrefix(s.Service, k.prefix)
}

// group is the streams of one prefix, "" being all of a namespace.
type group struct {
	audience
	key groupKey
	// cutting holds a token of who takes a cut; cut is the latest one, which those
	// share who come at the same time.
	cutting chan struct{}
	cut     atomic.Pointer[cut]
}

// groups finds the groups that a service belongs to without looking at the
// others. Guarded by Hub.mu.
type groups struct {
	byKey   map[groupKey]*group
	lengths [muster.MaxNameLen + 1]int // how many groups have a prefix that long
}

func (g *groups) obtain(k groupKey, floor uint64) *group {
	found := g.byKey[k]
	if found == nil {
		found = &group{key: k, cutting: make(chan struct{}, 1), audience: audience{lost: floor}}
		g.byKey[k] = found
		g.lengths[len(k.prefix)]++
	}
	return found
}

func (g *groups) drop(k groupKey) {
	delete(g.byKey, k)
	g.lengths[len(k.prefix)]--
}

// of calls fn for every group that k belongs to.
func (g *groups) of(k muster.ServiceKey, fn func(*group)) {
	left := len(g.byKey)
	for n := 0; n <= min(len(k.Service), muster.MaxNameLen) && left > 0; n++ {
		if g.lengths[n] == 0 {
			continue
		}
		left -= g.lengths[n]
		if found := g.byKey[groupKey{k.Namespace, k.Service[:n]}]; found != nil {
			fn(found)
		}
	}
}

// topicOf returns the topic of a service; a new one may have missed anything up
// to the floor. It is called with mu held.
func (h *Hub) topicOf(k muster.ServiceKey) *topic {
	t := h.topics[k]
	if t == nil {
		t = &topic{key: k, audience: audience{lost: h.ring.floor}}
		h.topics[k] = t
	}
	return t
}

// link adds an entry to the ring. It is called with mu held.
func (h *Hub) link(e *entry) {
	for _, c := range e.changes {
		t := h.topicOf(c.key)
		c.topic = t
		t.changes = append(t.changes, c)
		t.last, t.view, c.view = e.index, c.view, nil
		if !t.touched && (t.seats > 0 || len(h.groups.byKey) > 0) {
			t.touched = true
			h.touched = append(h.touched, t)
		}
	}
	h.ring.push(e)
}

// trim drops the oldest entries, whole ones, until the ring is within its bounds.
// It is called with mu held.
func (h *Hub) trim() {
	for h.ring.events > h.cfg.MaxEvents || h.ring.bytes > h.cfg.MaxBytes {
		e := h.ring.pop()
		for _, c := range e.changes {
			t := c.topic
			t.changes[0] = nil
			t.changes = t.changes[1:]
			t.lost = e.index
			h.groups.of(c.key, func(g *group) { g.lost = e.index })
			h.forget(t)
		}
	}
}

// forget lets go of a topic that nobody needs. It is called with mu held.
func (h *Hub) forget(t *topic) {
	if len(t.changes) == 0 {
		t.changes = nil
		if t.seats == 0 && !t.touched {
			delete(h.topics, t.key)
		}
	}
}

// reset empties the ring: what came before index cannot be told. It is called
// with mu held.
func (h *Hub) reset(index uint64) {
	h.ring = ring{floor: index}
	h.replaced = index
	for _, t := range h.topics {
		t.changes, t.view = nil, nil
		h.forget(t)
	}
	h.everyone = true
}
