package balancer

import "math"

// rendezvous gives equal keys to the same instance by letting all of them bid for
// the key and taking the highest bid: the keys of an instance that leaves are
// spread over all others, and no other key moves. It looks at every instance for
// every pick; consistent_hash costs the same whatever their number, and moves a few
// keys more.
//
// Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998);
// weights by the logarithm of the bid, Schindelhauer and Schomaker, "Weighted
// Distributed Hash Tables" (SPAA 2005).
type rendezvous struct{ *row }

func (rendezvous) next(p *pool, t *tier, d draw) int32 {
	r := p.roster
	hashes := r.hashed()
	key := d.key + uint64(d.try)*0x9e3779b97f4a7c15
	best, wanted := int32(-1), int32(-1) // of those in, of all
	high, highest := math.Inf(-1), math.Inf(-1)
	for place := t.span.lo; place < t.span.hi; place++ {
		if t.rest && t.skip.has(place) {
			continue
		}
		bid := bidOf(mix(key^hashes[place]), r, place)
		if bid > highest {
			highest, wanted = bid, place
		}
		if bid > high && p.isIn(place) {
			high, best = bid, place
		}
	}
	if wanted != best && p.admits(wanted, d.at) {
		best = wanted
	}
	return best
}

// bidOf is the bid of an instance whose hash with the key is h: -w / ln u for u
// evenly between 0 and 1. Where all weights are equal u itself ranks alike.
func bidOf(h uint64, r *roster, place int32) float64 {
	u := (float64(h>>11) + 0.5) / (1 << 53)
	if r.weights == nil {
		return u
	}
	return -float64(r.weights[place]) / math.Log(u)
}
