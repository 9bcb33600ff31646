package client

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// Held says why a watch shows instances that the registry does not list.
type Held string

// Why instances are held.
const (
	// HeldExpired: the registry says that the service is empty because its leases ran
	// out. That takes only a network between the registry and a few instances that
	// fails, which is why they are shown for a while longer (Config.HoldExpired).
	HeldExpired Held = "expired"
	// HeldUnknown: the registry knows nothing of the service and gives no reason, as
	// one does that has lost its data. They are shown until it says something.
	HeldUnknown Held = "unknown"
)

// picture is what is shown of a service at a moment. It is immutable but for the
// channel.
type picture struct {
	view     *muster.View
	old      bool // read from disk, and not confirmed by a node since
	held     Held
	replaced chan struct{} // closed when another one takes its place
}

// entry is the cache of one service.
type entry struct {
	key   muster.ServiceKey
	hold  time.Duration
	dirty func(*entry) // called when what is shown has changed, without mu
	refs  int          // guarded by feed.mu: its watches
	shown atomic.Pointer[picture]
	first chan struct{} // closed when there is a picture

	mu      sync.Mutex
	truth   *muster.View // guarded by mu: what a node told last; nil: nothing yet
	release *time.Timer  // guarded by mu: ends a hold
}

func newEntry(key muster.ServiceKey, hold time.Duration, dirty func(*entry)) *entry {
	return &entry{key: key, hold: hold, dirty: dirty, first: make(chan struct{})}
}

// full takes in a whole view. Within one history (anew is false) what is older than
// what was told already is not believed.
func (e *entry) full(v *muster.View, anew bool) {
	e.mu.Lock()
	if e.truth != nil && !anew && (v.Index < e.truth.Index || v.Index == e.truth.Index && len(v.Instances) == len(e.truth.Instances)) {
		e.mu.Unlock()
		return
	}
	e.truth = v
	shown := e.show()
	e.mu.Unlock()
	if shown {
		e.dirty(e)
	}
}

// unknown takes in that the registry knows nothing of the service.
func (e *entry) unknown(index uint64, anew bool) {
	e.full(&muster.View{Namespace: e.key.Namespace, Service: e.key.Service, Index: index, Instances: []*muster.Instance{}}, anew)
}

// change takes in events of one log entry.
func (e *entry) change(events []*muster.Event) {
	e.mu.Lock()
	if e.truth == nil {
		e.mu.Unlock()
		return // its view is still to come, and will show them
	}
	next := after(e.truth, events)
	shown := false
	if next != nil {
		e.truth = next
		shown = e.show()
	}
	e.mu.Unlock()
	if shown {
		e.dirty(e)
	}
}

// has reports whether a node has told of the service, and at which index.
func (e *entry) has() (index uint64, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.truth == nil {
		return 0, false
	}
	return e.truth.Index, true
}

// recall shows a view from disk, unless something is shown already.
func (e *entry) recall(v *muster.View) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shown.Load() == nil {
		e.put(&picture{view: v, old: true})
	}
}

// show shows the truth, or goes on with what is shown where the truth is an
// emptiness that nobody wanted. It reports whether it shows another view now, and
// is called with mu held.
func (e *entry) show() bool {
	now := e.shown.Load()
	held := Held("")
	if now != nil && len(now.view.Instances) > 0 && len(e.truth.Instances) == 0 {
		switch e.truth.EmptyReason {
		case muster.EmptyExpired:
			if e.hold > 0 {
				held = HeldExpired
			}
		case "":
			held = HeldUnknown
		}
	}
	if now != nil && held != "" {
		if held == now.held {
			return false
		}
		e.put(&picture{view: now.view, old: now.old, held: held})
		if held == HeldExpired {
			p := e.shown.Load()
			e.release = time.AfterFunc(e.hold, func() { e.letGo(p) })
		}
		return false
	}
	e.put(&picture{view: e.truth})
	return true
}

// put shows a picture. It is called with mu held.
func (e *entry) put(p *picture) {
	if e.release != nil {
		e.release.Stop()
		e.release = nil
	}
	p.replaced = make(chan struct{})
	if was := e.shown.Swap(p); was != nil {
		close(was.replaced)
	} else {
		close(e.first)
	}
}

// letGo ends the hold of instances whose leases ran out, unless something else is
// shown by now.
func (e *entry) letGo(held *picture) {
	e.mu.Lock()
	if e.shown.Load() != held {
		e.mu.Unlock()
		return
	}
	e.put(&picture{view: e.truth})
	e.mu.Unlock()
	e.dirty(e)
}

// stop ends what waits for its time.
func (e *entry) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.release != nil {
		e.release.Stop()
		e.release = nil
	}
}

// checked is v if it is what a view must be: its instances there and in order. What
// comes from elsewhere must not bring down a process that picks from it.
func checked(v *muster.View, key muster.ServiceKey) (*muster.View, error) {
	if v == nil || v.Key() != key || slices.Contains(v.Instances, nil) ||
		!slices.IsSortedFunc(v.Instances, func(a, b *muster.Instance) int { return strings.Compare(a.ID, b.ID) }) {
		return nil, muster.Errorf(muster.CodeInternal, "what was sent is not the view of service %s", key)
	}
	if v.Instances == nil {
		v.Instances = []*muster.Instance{}
	}
	displace(v.Instances...)
	return v, nil
}

// after is the view that events make of v; nil where they are all in it already.
// It shares with v what did not change.
func after(v *muster.View, events []*muster.Event) *muster.View {
	next := &muster.View{
		Namespace: v.Namespace, Service: v.Service, Index: v.Index, Settings: v.Settings, Instances: v.Instances, EmptyReason: v.EmptyReason,
	}
	copied := false
	for _, e := range events {
		if e.Index <= v.Index {
			continue
		}
		next.Index = e.Index
		if e.Type == muster.EventSettings {
			next.Settings = e.Settings
			continue
		}
		if !copied {
			next.Instances, copied = slices.Clone(v.Instances), true
		}
		n, found := slices.BinarySearchFunc(next.Instances, e.ID, func(i *muster.Instance, id string) int { return strings.Compare(i.ID, id) })
		switch {
		case e.Instance != nil && found:
			next.Instances[n] = e.Instance
		case e.Instance != nil:
			next.Instances = slices.Insert(next.Instances, n, e.Instance)
		case found:
			next.Instances = slices.Delete(next.Instances, n, n+1)
		}
		if len(next.Instances) > 0 {
			next.EmptyReason = ""
		} else if next.EmptyReason = muster.EmptyExpired; e.Type == muster.EventDeregistered {
			next.EmptyReason = muster.EmptyDeregistered
		}
	}
	if next.Index == v.Index {
		return nil
	}
	next.Protected = slices.ContainsFunc(next.Instances, func(i *muster.Instance) bool { return i.Suspect })
	return next
}
