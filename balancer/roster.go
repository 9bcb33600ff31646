package balancer

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/muster-registry/muster"
)

// roster is who may be picked from a view, the ejected included: what stays as it
// is while ejections come and go. It is immutable but for what is made on demand.
// A place is an index into it.
type roster struct {
	kind kind
	step int64  // of slow start, see ramp; 0: nobody is on the way up
	live uint64 // the service's epoch: the slots are those of its records
	// index is the view's.
	index uint64

	// insts are sorted by zone, then by id, so that a zone is a stretch of them.
	insts []*muster.Instance
	// weights are in lowest terms, with slow start, and sum up to less than 2^32;
	// nil: all are 1.
	weights []uint32
	whole   *span
	zones   []*span // in order; nil where all are in one zone

	hashOnce sync.Once
	hashes   []uint64

	learnOnce sync.Once
	chunks    []*chunk
	slots     []uint32 // nil: they begin with firstSlot and have no gap
	firstSlot uint32
}

// kind is by which rule a roster was made.
type kind uint8

const (
	normal kind = iota
	panicking
	lastResort
)

// span is a stretch of a roster, with its hash table.
type span struct {
	zone   string
	lo, hi int32 // places
	once   sync.Once
	slots  []int32 // relative to lo
}

func (s *span) has(place int32) bool { return s.lo <= place && place < s.hi }

// table returns the hash table of the span, made at the first call.
func (s *span) table(r *roster) []int32 {
	s.once.Do(func() {
		weights := r.weights
		if weights != nil {
			weights = weights[s.lo:s.hi]
		}
		s.slots = buildTable(r.hashed()[s.lo:s.hi], weights)
	})
	return s.slots
}

// hashed returns the hashes of the instances' ids (XXH64), made at the first call.
// They are the same everywhere.
func (r *roster) hashed() []uint64 {
	r.hashOnce.Do(func() {
		r.hashes = make([]uint64, len(r.insts))
		for n, i := range r.insts {
			r.hashes[n] = xxhash.Sum64String(i.ID)
		}
	})
	return r.hashes
}

// weight is the weight at a place.
func (r *roster) weight(place int32) uint32 {
	if r.weights == nil {
		return 1
	}
	return r.weights[place]
}

// learn makes sure that every instance has a slot of the service.
func (r *roster) learn(svc *service) {
	r.learnOnce.Do(func() { svc.equip(r) })
}

func (r *roster) slot(place int32) uint32 {
	if r.slots == nil {
		return r.firstSlot + uint32(place)
	}
	return r.slots[place]
}

// word is what was learnt of the instance at a place. Only after learn.
func (r *roster) word(place int32) *word {
	slot := r.slot(place)
	return &r.chunks[slot/chunkSize].words[slot%chunkSize]
}

// record is the record of the instance at a place. Only after learn.
func (r *roster) record(place int32) *record {
	slot := r.slot(place)
	return r.chunks[slot/chunkSize].records[slot%chunkSize].Load()
}

// newRoster makes a roster of insts, which are sorted by id, of a view of that index.
func newRoster(insts []*muster.Instance, index uint64, k kind, up ramp, svc *service) *roster {
	r := &roster{kind: k, step: up.step, live: svc.epoch.Load(), index: index}
	r.insts, r.zones = byZone(insts)
	r.whole = &span{hi: int32(len(insts))}
	r.weights = weigh(r.insts, up)
	return r
}

// fits reports whether r is what newRoster would make now of the same view.
func (r *roster) fits(k kind, up ramp, svc *service) bool {
	return r.kind == k && r.step == up.step && r.live == svc.epoch.Load()
}

// weigh returns the weights of instances, nil where they are all the same.
func weigh(insts []*muster.Instance, up ramp) []uint32 {
	weights := make([]uint32, len(insts))
	var divisor, sum uint64
	for n, i := range insts {
		weights[n] = up.weight(i)
		divisor = gcd(divisor, uint64(weights[n]))
		sum += uint64(weights[n])
	}
	// Terms so high that they do not fit are rounded. That takes tens of thousands of
	// instances with weights near the highest, and then costs less than a weight of 1.
	for sum/divisor > math.MaxUint32-uint64(len(insts)) {
		divisor++
	}
	equal := true
	for n := range weights {
		weights[n] = uint32(max(1, uint64(weights[n])/divisor))
		equal = equal && weights[n] == weights[0]
	}
	if equal {
		return nil
	}
	return weights
}

// byZone sorts instances by zone, keeping their order within each, and returns the
// zones' stretches; none where there is only one zone.
func byZone(insts []*muster.Instance) ([]*muster.Instance, []*span) {
	sizes := map[string]int32{}
	for _, i := range insts {
		sizes[i.Zone]++
	}
	if len(sizes) < 2 {
		return insts, nil
	}
	spans := make([]*span, 0, len(sizes))
	for zone, n := range sizes {
		spans = append(spans, &span{zone: zone, hi: n})
	}
	slices.SortFunc(spans, func(a, b *span) int { return cmp.Compare(a.zone, b.zone) })
	next := sizes // where the zone's next instance goes
	lo := int32(0)
	for _, s := range spans {
		s.lo, s.hi = lo, lo+s.hi
		next[s.zone] = lo
		lo = s.hi
	}
	sorted := make([]*muster.Instance, len(insts))
	for _, i := range insts {
		sorted[next[i.Zone]] = i
		next[i.Zone]++
	}
	return sorted, spans
}
