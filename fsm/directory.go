package fsm

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"github.com/muster-registry/muster"
)

// absentShards is how many channels those share who wait for a service that is
// not known: whoever waits for one is woken for nothing by one in so many others.
const absentShards = 1024

// directory finds services by name. Raft's goroutine adds and removes, and
// reads byKey without the lock; everybody else reads under it.
type directory struct {
	mu     sync.RWMutex
	byKey  map[muster.ServiceKey]*service // guarded by mu
	order  []*service                     // guarded by mu; sorted by key
	closed bool                           // guarded by mu; another directory took its place

	seed     maphash.Seed // of no consequence but for who is woken for nothing
	absentMu sync.Mutex
	absent   map[uint64]chan struct{} // guarded by absentMu, under mu
}

func newDirectory() *directory {
	return &directory{
		byKey: make(map[muster.ServiceKey]*service), seed: maphash.MakeSeed(), absent: make(map[uint64]chan struct{}),
	}
}

// find is for raft's goroutine.
func (d *directory) find(k muster.ServiceKey) *service { return d.byKey[k] }

// lookup is for everybody.
func (d *directory) lookup(k muster.ServiceKey) *service {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.byKey[k]
}

// watch returns the service, or where it is not known a channel that is closed
// once it may be.
func (d *directory) watch(k muster.ServiceKey) (*service, <-chan struct{}) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if s := d.byKey[k]; s != nil {
		return s, nil
	}
	if d.closed {
		return nil, closedChannel
	}
	d.absentMu.Lock()
	defer d.absentMu.Unlock()
	shard := d.shard(k)
	ch := d.absent[shard]
	if ch == nil {
		ch = make(chan struct{})
		d.absent[shard] = ch
	}
	return nil, ch
}

func (d *directory) shard(k muster.ServiceKey) uint64 {
	return maphash.Comparable(d.seed, k) % absentShards
}

// add makes room for a service; its view is published with the batch.
func (d *directory) add(s *service) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byKey[s.key] = s
	n, _ := slices.BinarySearchFunc(d.order, s, compareServices)
	d.order = slices.Insert(d.order, n, s)
	// No reader holds mu, so that absent is ours. Who is woken here finds the
	// service, and waits for its view on the service's own channel.
	shard := d.shard(s.key)
	if ch := d.absent[shard]; ch != nil {
		close(ch)
		delete(d.absent, shard)
	}
}

func (d *directory) remove(s *service) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.byKey, s.key)
	if n, ok := slices.BinarySearchFunc(d.order, s, compareServices); ok {
		d.order = slices.Delete(d.order, n, n+1)
	}
}

// close wakes everybody who waits: another directory has taken its place.
func (d *directory) close() {
	d.mu.Lock()
	d.closed = true
	for _, ch := range d.absent {
		close(ch)
	}
	clear(d.absent)
	order := d.order
	d.mu.Unlock()
	for _, s := range order {
		close(s.pub.Load().changed)
	}
}

// published lists what can be read of all services, in the order of their keys.
func (d *directory) published() []*published {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]*published, 0, len(d.order))
	for _, s := range d.order {
		if p := s.pub.Load(); p.view != nil {
			all = append(all, p)
		}
	}
	return all
}

var closedChannel = func() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

// listing is the list of services that have instances, as of one index. It is
// built when it is first asked for.
type listing struct {
	index   uint64
	changed chan struct{}
	dir     *directory
	once    sync.Once
	all     []muster.ServiceSummary
}

func newListing(index uint64, dir *directory) *listing {
	return &listing{index: index, dir: dir, changed: make(chan struct{})}
}

// summaries is the whole list. One that is built late may show what came after
// its index: changed is closed then, and who waits reads again.
func (l *listing) summaries() []muster.ServiceSummary {
	l.once.Do(func() {
		l.all = []muster.ServiceSummary{}
		for _, p := range l.dir.published() {
			if n := len(p.view.Instances); n > 0 {
				l.all = append(l.all, muster.ServiceSummary{
					Namespace: p.view.Namespace, Service: p.view.Service, Instances: n, Routable: p.routable, Index: p.view.Index,
				})
			}
		}
		l.dir = nil
	})
	return l.all
}

// choose narrows the list to a namespace ("": all) and a prefix of the name.
func choose(all []muster.ServiceSummary, namespace, prefix string) []muster.ServiceSummary {
	if namespace == "" {
		if prefix == "" {
			return all
		}
		some := []muster.ServiceSummary{}
		for _, s := range all {
			if strings.HasPrefix(s.Service, prefix) {
				some = append(some, s)
			}
		}
		return some
	}
	low, _ := slices.BinarySearchFunc(all, prefix, func(s muster.ServiceSummary, prefix string) int {
		return muster.ServiceKey{Namespace: s.Namespace, Service: s.Service}.Compare(muster.ServiceKey{Namespace: namespace, Service: prefix})
	})
	high := low
	for high < len(all) && all[high].Namespace == namespace && strings.HasPrefix(all[high].Service, prefix) {
		high++
	}
	return all[low:high:high]
}
