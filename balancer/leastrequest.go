package balancer

// leastRequest draws two instances, with chances in proportion to their weights,
// and takes the one with fewer requests in flight for its weight; between equals,
// the first drawn. So idle instances share by weight alone, and one that stalls is
// passed over as soon as its requests pile up.
//
// Two choices: Mitzenmacher, "The Power of Two Choices in Randomized Load
// Balancing" (2001). Drawing by weight and comparing by load over weight is what
// nginx does for "random two least_conn".
type leastRequest struct{ *row }

func (leastRequest) next(p *pool, t *tier, d draw) int32 {
	x, y := p.two(t, d)
	a, b := p.roster.word(x).inflight(), p.roster.word(y).inflight()
	if b < a || b > 0 { // else the first cannot lose
		if b*int64(p.roster.weight(x)) < a*int64(p.roster.weight(y)) {
			return y
		}
	}
	return x
}

// two draws two places by weight, distinct ones where that is not too unlikely.
func (p *pool) two(t *tier, d draw) (x, y int32) {
	x = p.sample(t, d.random())
	y = p.sample(t, d.random())
	for try := 0; x == y && try < 3 && t.n > 1; try++ {
		y = p.sample(t, d.random())
	}
	return x, y
}
