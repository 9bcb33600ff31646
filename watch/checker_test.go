package watch_test

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/watch"
)

// history is the committed log as a reference: what every stream must agree with.
type history struct {
	entries  []watch.Entry                        // that made events, in order
	replaced []uint64                             // indexes of restores
	views    map[muster.ServiceKey][]*muster.View // successive views of every service; one without a namespace: forgotten
}

// record applies a log, entry by entry, to a replica of its own and notes what
// became of it.
func record(log []logEntry) *history {
	h := &history{views: map[muster.ServiceKey][]*muster.View{}}
	r := newReplica()
	for _, e := range log {
		b := r.apply(e)
		h.entries = append(h.entries, b.Entries...)
		if b.Reset {
			h.replaced = append(h.replaced, b.Index)
		}
		h.note(r, b.Index)
	}
	return h
}

func (h *history) note(r *replica, index uint64) {
	for k, v := range r.views {
		if all := h.views[k]; len(all) == 0 || all[len(all)-1] != v {
			h.views[k] = append(all, v)
		}
	}
	for k, all := range h.views {
		if r.views[k] == nil && all[len(all)-1].Namespace != "" {
			h.views[k] = append(all, &muster.View{Index: index})
		}
	}
}

// at is the view of a service at an index; nil: it had no instance nor a memory
// of one.
func (h *history) at(k muster.ServiceKey, index uint64) *muster.View {
	all := h.views[k]
	n := sort.Search(len(all), func(n int) bool { return all[n].Index > index })
	if n == 0 || all[n-1].Namespace == "" {
		return nil
	}
	return all[n-1]
}

// checker follows one client, who may change streams and nodes, and holds what it
// is sent against the history.
type checker struct {
	h        *history
	services []string
	prefix   string

	index  uint64 // up to which the client knows all
	known  bool   // false before the first synced
	views  []*muster.View
	kind   watch.Kind // of views
	counts map[watch.Kind]int
}

func newChecker(h *history, spec watch.Spec) *checker {
	return &checker{h: h, services: slices.Sorted(slices.Values(spec.Services)), prefix: spec.Prefix, counts: map[watch.Kind]int{}}
}

func (c *checker) match(k muster.ServiceKey) bool {
	if len(c.services) > 0 {
		return slices.Contains(c.services, k.Service)
	}
	return strings.HasPrefix(k.Service, c.prefix)
}

// reconnect is told when the client opens another stream: what was half told is
// void.
func (c *checker) reconnect(afresh bool) {
	c.views = nil
	if afresh {
		c.known, c.index = false, 0
	}
}

// take checks one message.
func (c *checker) take(m watch.Message) error {
	c.counts[m.Kind]++
	switch m.Kind {
	case watch.KindSnapshot, watch.KindResync:
		if (m.Kind == watch.KindSnapshot) == c.known {
			return fmt.Errorf("%s, where the client knows all up to %d (%t)", text(m), c.index, c.known)
		}
		c.views, c.kind = append(c.views, m.View), m.Kind
		return nil
	case watch.KindSynced:
		return c.synced(m.Index)
	case watch.KindChange:
		return c.change(m)
	case watch.KindKeepAlive:
		return nil
	}
	return fmt.Errorf("%s: not expected", text(m))
}

// synced checks that the views are the state at the index, no more and no less.
func (c *checker) synced(index uint64) error {
	if c.known && index < c.index {
		return fmt.Errorf("synced %d after %d", index, c.index)
	}
	if !slices.IsSortedFunc(c.views, func(a, b *muster.View) int { return a.Key().Compare(b.Key()) }) {
		return fmt.Errorf("synced %d: views are not in order", index)
	}
	shown := map[muster.ServiceKey]bool{}
	for _, v := range c.views {
		k := v.Key()
		if shown[k] || !c.match(k) {
			return fmt.Errorf("synced %d: a view too many of %s", index, k)
		}
		shown[k] = true
		want := c.h.at(k, index)
		if v.Index > index {
			return fmt.Errorf("synced %d: the view of %s is of %d", index, k, v.Index)
		}
		if want == nil && len(v.Instances) == 0 { // forgotten, or never there
			continue
		}
		if want == nil || !bytes.Equal(want.JSON(), v.JSON()) {
			return fmt.Errorf("synced %d: got %s, want %s", index, v.JSON(), want.JSON())
		}
	}
	for k := range c.h.views {
		if v := c.h.at(k, index); c.match(k) && !shown[k] && v != nil && len(v.Instances) > 0 {
			return fmt.Errorf("synced %d: no view of %s", index, k)
		}
	}
	if len(c.services) > 0 && len(shown) != len(c.services) {
		return fmt.Errorf("synced %d: %d views of %d services", index, len(shown), len(c.services))
	}
	c.views, c.known, c.index = nil, true, index
	return nil
}

// change checks that m is the first entry after what is known that holds what the
// client wants, and all of that.
func (c *checker) change(m watch.Message) error {
	if !c.known || c.views != nil {
		return fmt.Errorf("%s before a synced", text(m))
	}
	for _, r := range c.h.replaced {
		if c.index < r && r <= m.Index {
			return fmt.Errorf("%s: the state was replaced at %d and the client, at %d, not told", text(m), r, c.index)
		}
	}
	want, events := c.following(c.index)
	if want != m.Index {
		return fmt.Errorf("%s: after %d comes %d", text(m), c.index, want)
	}
	n := 0
	for e := range m.Events {
		if n == len(events) || e.Index != m.Index || e.ID != events[n].ID || e.Service != events[n].Service || e.Type != events[n].Type ||
			(e.Instance == nil) != (events[n].Instance == nil) || e.Instance != nil && e.Instance.Version != events[n].Instance.Version {
			return fmt.Errorf("%s: event %d differs", text(m), n)
		}
		n++
	}
	if n != len(events) {
		return fmt.Errorf("%s: %d events of %d", text(m), n, len(events))
	}
	c.index = m.Index
	return nil
}

// following is the first entry after index that holds what the client wants, its
// events grouped by service in the order in which the entry names them; 0: none.
func (c *checker) following(index uint64) (uint64, []*muster.Event) {
	n := sort.Search(len(c.h.entries), func(n int) bool { return c.h.entries[n].Index > index })
	for _, e := range c.h.entries[n:] {
		var order []muster.ServiceKey
		by := map[muster.ServiceKey][]*muster.Event{}
		for _, ev := range e.Events {
			k := muster.ServiceKey{Namespace: ev.Namespace, Service: ev.Service}
			if !c.match(k) {
				continue
			}
			if by[k] == nil {
				order = append(order, k)
			}
			by[k] = append(by[k], ev)
		}
		var events []*muster.Event
		for _, k := range order {
			events = append(events, by[k]...)
		}
		if len(events) > 0 {
			return e.Index, events
		}
	}
	return 0, nil
}

// done reports whether the client has seen all there is.
func (c *checker) done() bool {
	if !c.known || c.views != nil {
		return false
	}
	for _, r := range c.h.replaced {
		if r > c.index {
			return false
		}
	}
	next, _ := c.following(c.index)
	return next == 0
}
