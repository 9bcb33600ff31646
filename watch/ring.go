package watch

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

// entry is a log entry that made events. It is immutable once it is linked, but
// for what its changes encode.
type entry struct {
	index   uint64
	applied time.Time
	changes []*change // one a service
	events  int
	bytes   int64 // guarded by Hub.mu once it is linked
}

// change is the events of one service in one entry: what a stream of that
// service is sent, encoded when it is first asked for and shared by all.
type change struct {
	entry  *entry
	key    muster.ServiceKey
	topic  *topic // set when it is linked
	events []*muster.Event
	view   *muster.View // after the batch; until it is linked
	weight int64        // what the encoding was taken to be

	once    sync.Once
	encoded []byte
}

// ring holds the latest entries. It is guarded by Hub.mu.
type ring struct {
	entries []*entry
	events  int
	bytes   int64
	// floor is the index of the newest entry that the ring no longer holds, or
	// never held: all after it are here.
	floor uint64
}

// after is the place of the first entry above index.
func (r *ring) after(index uint64) int {
	return sort.Search(len(r.entries), func(n int) bool { return r.entries[n].index > index })
}

func (r *ring) push(e *entry) {
	r.entries = append(r.entries, e)
	r.events += e.events
	r.bytes += e.bytes
}

func (r *ring) pop() *entry {
	e := r.entries[0]
	r.entries[0] = nil // append moves the rest to new memory before long
	r.entries = r.entries[1:]
	r.events -= e.events
	r.bytes -= e.bytes
	r.floor = e.index
	return e
}

// build makes an entry of what was applied, without a lock: group is the writer's
// scratch.
func (h *Hub) build(from Entry, applied time.Time) *entry {
	e := &entry{index: from.Index, applied: applied, events: len(from.Events)}
	var c *change
	for _, ev := range from.Events {
		if key := (muster.ServiceKey{Namespace: ev.Namespace, Service: ev.Service}); c == nil || c.key != key {
			if c = h.scratch[key]; c == nil {
				c = &change{entry: e, key: key, view: h.state.View(key)}
				h.scratch[key] = c
				e.changes = append(e.changes, c)
			}
		}
		c.events = append(c.events, ev)
		c.weight += weigh(ev)
	}
	for _, c := range e.changes {
		e.bytes += c.weight
	}
	if len(h.scratch) > 256 { // clearing a large map costs as much every time
		h.scratch = make(map[muster.ServiceKey]*change)
	}
	clear(h.scratch)
	return e
}

// weigh estimates the size of an event when encoded, rather above it than below.
func weigh(e *muster.Event) int64 {
	n := 360 + len(e.Namespace) + len(e.Service) + len(e.ID) + len(e.Actor) + len(e.Reason)
	if i := e.Instance; i != nil {
		n += 600 + len(i.Namespace) + len(i.Service) + len(i.ID) + len(i.Address) + len(i.Version) + len(i.Zone) + len(i.SuspectReason)
		for _, t := range i.Tags {
			n += len(t) + 3
		}
		for k, v := range i.Meta {
			n += len(k) + len(v) + 6
		}
		for k := range i.Ports {
			n += len(k) + 9
		}
		for c := range i.Checks {
			n += 200 + len(i.Checks[c].Path) + len(i.Checks[c].Contains)
		}
		if o := i.Override; o != nil {
			n += 100 + len(o.Reason) + len(o.Actor)
		}
	}
	return int64(n)
}

// json is the events of c as JSON, with commas between.
func (c *change) json(h *Hub) []byte {
	c.once.Do(func() {
		b := make([]byte, 0, c.weight)
		for n, ev := range c.events {
			one, err := json.Marshal(ev)
			if err != nil { // only strings, numbers and times: cannot happen
				panic(fmt.Sprintf("watch: encoding an event: %v", err))
			}
			if n > 0 {
				b = append(b, ',')
			}
			b = append(b, one...)
		}
		c.encoded = slices.Clip(b)
		h.metrics.encodings.Inc()
		h.correct(c.entry, int64(len(b))-c.weight)
	})
	return c.encoded
}

// correct accounts for an encoding that is larger than was thought, as text that
// JSON has to escape is.
func (h *Hub) correct(e *entry, more int64) {
	if more <= 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.index > h.ring.floor {
		e.bytes += more
		h.ring.bytes += more
	}
}
