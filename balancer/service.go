package balancer

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/muster-registry/muster"
)

// service is what a Balancer knows of one service, whatever view it is seen in.
type service struct {
	key muster.ServiceKey
	// gen rises with every change that makes the pools built before wrong, epoch
	// with those that make their rosters wrong too.
	gen, epoch atomic.Uint64
	inflight   atomic.Int64 // on all of its instances
	settings   atomic.Pointer[muster.Settings]
	index      atomic.Uint64 // of the newest whole view seen
	count      *atomic.Int64 // of the Balancer's records

	mu      sync.Mutex
	records map[string]*record // guarded by mu; by instance id
	open    map[string]*record // guarded by mu: whose breaker is not closed
	slots   slots              // guarded by mu
	used    moment             // guarded by mu: when it was last built for or told of
	gone    bool               // guarded by mu: the Balancer has forgotten it
}

// service returns the state of a service, made if need be; last is what it was
// when last asked, or nil.
func (b *Balancer) service(k muster.ServiceKey, last *service, at moment) *service {
	if last != nil && last.use(at) {
		return last
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.services[k]
	if s == nil || !s.use(at) {
		s = &service{key: k, count: &b.records, used: at, records: map[string]*record{}, open: map[string]*record{}}
		s.settings.Store(&defaultSettings)
		b.services[k] = s
	}
	return s
}

// use keeps s from being forgotten; false where that has happened.
func (s *service) use(at moment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = max(s.used, at)
	return !s.gone
}

// follow takes over the settings and the index of a view that is picked from.
func (s *service) follow(v *muster.View, settings *muster.Settings) {
	if v.Index < s.index.Load() {
		return // of somebody who still holds an older one
	}
	s.settings.Store(settings)
	if !v.Partial() {
		s.index.Store(v.Index)
	}
}

// record returns the record of an instance as a view of that index shows it, made
// if need be.
func (s *service) record(i *muster.Instance, index uint64) *record {
	r := s.named(i.ID)
	r.meet(i, index)
	return r
}

// named returns the record of an instance of which only the id is known.
func (s *service) named(id string) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[id]
	if r == nil {
		r = s.add(id)
	}
	return r
}

// add makes a record. The caller holds mu.
func (s *service) add(id string) *record {
	r := &record{id: id, svc: s, breaker: breaker{state: Closed}, touched: s.used}
	s.slots.take(r)
	s.records[id] = r
	s.count.Add(1)
	return r
}

// find returns the record of an instance, nil where there is none.
func (s *service) find(id string) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records[id]
}

// equip gives every instance of a roster a record, and the roster their slots.
func (s *service) equip(r *roster) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make([]*record, len(r.insts))
	missing := 0
	for n, i := range r.insts {
		if found[n] = s.records[i.ID]; found[n] == nil {
			missing++
		}
	}
	s.slots.grow(missing)
	places := make([]uint32, len(r.insts))
	inLine := true
	for n, i := range r.insts {
		if found[n] == nil {
			found[n] = s.add(i.ID)
		}
		found[n].meet(i, r.index)
		places[n] = found[n].slot
		inLine = inLine && places[n] == places[0]+uint32(n)
	}
	r.chunks, r.firstSlot = slices.Clone(s.slots.chunks), places[0]
	if !inLine {
		r.slots = places
	}
}

// trip is an instance whose breaker is not closed.
type trip struct {
	rec          *record
	state        State
	since, until moment
}

// tripped returns whose breakers are not closed now.
func (s *service) tripped(at moment) []trip {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advance(at)
}

// advance lets time do what it does to the breakers, and returns those not closed.
// The caller holds mu.
func (s *service) advance(at moment) []trip {
	var all []trip
	for id, r := range s.open {
		r.mu.Lock()
		if r.breaker.advance(at); r.breaker.state == Closed {
			delete(s.open, id)
		} else {
			all = append(all, trip{r, r.breaker.state, r.breaker.since, r.breaker.until})
		}
		r.mu.Unlock()
	}
	return all
}

// settle takes note that the breaker of r changed.
func (s *service) settle(r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records[r.id] != r {
		return // forgotten meanwhile
	}
	r.mu.Lock()
	if r.breaker.state == Closed {
		delete(s.open, r.id)
	} else {
		s.open[r.id] = r
		r.renewAt.Store(0)
	}
	r.mu.Unlock()
	s.gen.Add(1)
}

// sweep forgets the records that forget tells it to. It reports whether nothing is
// left and nobody asked for long, and then the service is gone for good.
func (s *service) sweep(at moment, forget func(*record) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(at)
	before := len(s.records)
	s.slots.settle()
	maps.DeleteFunc(s.records, func(id string, r *record) bool {
		if !forget(r) {
			return false
		}
		delete(s.open, id)
		s.slots.release(r)
		return true
	})
	if n := before - len(s.records); n > 0 {
		s.count.Add(int64(-n))
		s.epoch.Add(1)
		s.gen.Add(1)
	}
	if s.gone = len(s.records) == 0 && s.used < at.add(-forgetAfter) && s.inflight.Load() == 0; s.gone {
		s.gen.Add(1)
	}
	return s.gone
}

// all returns the services of b.
func (b *Balancer) all() []*service {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.services))
}
