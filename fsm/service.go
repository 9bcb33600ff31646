package fsm

import (
	"maps"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/muster-registry/muster"
)

// maxServiceTombstones bounds the services that are remembered after their last
// instance is gone.
const maxServiceTombstones = 10_000

// service is one service. Readers see what pub holds. The other fields are the
// service as of the last operation, ahead of pub while a batch is applied; they
// belong to raft's goroutine.
type service struct {
	key  muster.ServiceKey // its strings are shared by the instances
	keys []muster.ServiceKey
	pub  atomic.Pointer[published]

	known bool // false: nothing is known of it (any more)
	place int  // among the services that have no instance
	dirty bool // pub has to be replaced
	shown bool // visible content has changed since pub

	// overlay holds the instances that were changed since pub; nil: removed.
	overlay map[string]*muster.Instance
	// below holds the status of the instances that are overridden. The map is
	// pub's and must be copied before it is written, unless owned.
	below map[string]base
	owned bool

	n, routable, suspect int
	index                uint64
	reason               muster.EmptyReason
	settings             *muster.Settings
	like                 *muster.Instance // a recent one, whose values others may share
}

// published is one state of a service as readers see it; immutable.
type published struct {
	view     *muster.View // nil: nothing is known of the service
	below    map[string]base
	routable int
	changed  chan struct{} // closed when the view is replaced
}

func newService(key muster.ServiceKey) *service {
	s := &service{key: key, keys: []muster.ServiceKey{key}}
	s.pub.Store(&published{changed: make(chan struct{})})
	return s
}

func (s *service) setPlace(n int) { s.place = n }

// find returns an instance as of the last operation; nil where there is none.
func (s *service) find(id string) *muster.Instance {
	if i, ok := s.overlay[id]; ok {
		return i
	}
	if v := s.pub.Load().view; v != nil {
		return v.Find(id)
	}
	return nil
}

// set replaces old by next; either may be nil. It keeps the counts.
func (s *service) set(id string, old, next *muster.Instance) {
	if s.overlay == nil {
		s.overlay = make(map[string]*muster.Instance)
	}
	s.overlay[id] = next
	s.count(old, -1)
	s.count(next, 1)
}

func (s *service) count(i *muster.Instance, by int) {
	if i == nil {
		return
	}
	s.n += by
	if i.Routable {
		s.routable += by
	}
	if i.Suspect {
		s.suspect += by
	}
}

// baseOf is the status of i below its override.
func (s *service) baseOf(i *muster.Instance) base {
	if i.Override != nil {
		if b, ok := s.below[i.ID]; ok {
			return b
		}
	}
	return base{i.Status, i.StatusCause, i.StatusSince}
}

// setBelow keeps the status of an overridden instance; nil: it is not (any
// more) overridden.
func (s *service) setBelow(id string, b *base) {
	if _, ok := s.below[id]; b == nil && !ok {
		return
	}
	if !s.owned {
		s.below, s.owned = maps.Clone(s.below), true
		if s.below == nil {
			s.below = make(map[string]base)
		}
	}
	if b != nil {
		s.below[id] = *b
	} else {
		delete(s.below, id)
	}
}

// publish makes the service visible as it is now. It returns the channel to be
// closed once the batch can be read; nil where nothing visible changed.
func (s *service) publish() chan struct{} {
	old := s.pub.Load()
	next := &published{view: old.view, below: s.below, routable: s.routable, changed: old.changed}
	var wake chan struct{}
	switch {
	case !s.known:
		next.view, wake = nil, old.changed
	case s.shown:
		next.view, wake = s.view(old.view), old.changed
	}
	if len(next.below) == 0 {
		next.below = nil
	}
	switch {
	case !s.known:
		next.changed = closedChannel // s is out of the directory: look again
	case wake != nil:
		next.changed = make(chan struct{})
	}
	s.pub.Store(next)
	s.dirty, s.shown, s.owned = false, false, false
	s.overlay = emptied(s.overlay)
	if s.n == 0 {
		s.overlay, s.like = nil, nil
	}
	return wake
}

// view builds the view of the service as it is now.
func (s *service) view(old *muster.View) *muster.View {
	v := &muster.View{
		Namespace: s.key.Namespace, Service: s.key.Service, Index: s.index,
		Instances: make([]*muster.Instance, 0, s.n), Protected: s.suspect > 0, Settings: s.settings,
	}
	if s.n == 0 {
		v.EmptyReason = s.reason
		return v
	}
	var kept []*muster.Instance
	if old != nil {
		kept = old.Instances
	}
	for _, id := range slices.Sorted(maps.Keys(s.overlay)) {
		n := sort.Search(len(kept), func(n int) bool { return kept[n].ID >= id })
		v.Instances = append(v.Instances, kept[:n]...)
		kept = kept[n:]
		if len(kept) > 0 && kept[0].ID == id {
			kept = kept[1:]
		}
		if i := s.overlay[id]; i != nil {
			v.Instances = append(v.Instances, i)
		}
	}
	v.Instances = append(v.Instances, kept...)
	return v
}

// load makes s what a snapshot says: its instances, sorted by id.
func (s *service) load(instances []*muster.Instance, below map[string]base) {
	s.known, s.below = true, below
	for _, i := range instances {
		s.count(i, 1)
	}
	s.pub.Store(&published{
		view: &muster.View{
			Namespace: s.key.Namespace, Service: s.key.Service, Index: s.index, Instances: instances,
			Protected: s.suspect > 0, EmptyReason: s.reason, Settings: s.settings,
		},
		below: below, routable: s.routable, changed: make(chan struct{}),
	})
	if s.n > 0 {
		s.like = instances[s.n-1]
	}
}

func compareServices(a, b *service) int {
	return a.key.Compare(b.key)
}
