package balancer

import "math/bits"

// boundedHash is consistentHash with a bound: no instance is given a request that
// would put more in flight there than its fair share of all that are, times the
// settings' LoadFactor, rounded up. A key whose instance is full goes to the next
// one in its order that is not, and returns when there is room.
//
// Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads"
// (SODA 2018), as used by HAProxy (hash-balance-factor) and Envoy.
//
// What is in flight is what Start counted. For a whole service that is one counter,
// and the bound is never exceeded, however many pick at once. For a part of a
// service (a filter, a zone) the instances' counters are added up anew after every
// n/8 picks, so that the sum may be behind by that many and the bound off by one.
type boundedHash struct{ *row }

func (boundedHash) next(p *pool, t *tier, d draw) int32 {
	count := d.count && d.try == 0
	var total int64
	if p.whole && t == &p.all {
		if count {
			total = p.svc.inflight.Add(1)
		} else {
			total = p.svc.inflight.Load() + 1
		}
	} else {
		total = t.recount(p) + 1
		if count {
			t.sum.Add(1)
			p.svc.inflight.Add(1)
		}
	}
	limit := bound{factor: uint64(p.settings.LoadFactor), total: uint64(max(1, total)), weight: t.weight(p)}
	w := p.walk(t, d)
	for range w.slots {
		place := w.step()
		if place < 0 {
			continue
		}
		held, most := p.roster.word(place), limit.of(p.roster.weight(place))
		if count && held.take(most) || !count && held.inflight() < most {
			return place
		}
	}
	// Not while the sums are true: then somebody is below his share. A counter that
	// ran ahead between the two looks can bring us here.
	place := p.place(t.pos(int32(d.key % uint64(t.n))))
	if count {
		p.roster.word(place).begin()
	}
	return place
}

// bound is what each instance of a tier may hold.
type bound struct {
	factor uint64 // percent
	total  uint64 // in flight, the new one included
	weight uint64 // of the tier
}

// of is the most that may be in flight on an instance: its share by weight of the
// total, times the factor, rounded up.
func (b bound) of(weight uint32) int64 {
	den := 100 * b.weight
	hi, lo := bits.Mul64(b.factor*b.total, uint64(weight))
	lo, carry := bits.Add64(lo, den-1, 0)
	most, _ := bits.Div64(hi+carry, lo, den)
	return int64(most)
}

// recount returns about how many are in flight on the instances of t.
func (t *tier) recount(p *pool) int64 {
	if t.left.Add(-1) >= 0 {
		return t.sum.Load()
	}
	t.left.Store(int64(t.n) / 8)
	var sum int64
	for k := range t.n {
		sum += p.roster.word(p.place(t.pos(k))).inflight()
	}
	t.sum.Store(sum)
	return sum
}
