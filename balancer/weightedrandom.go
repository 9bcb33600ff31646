package balancer

// weightedRandom takes any instance, with chances in proportion to the weights, by
// the inverse of the cumulated weights and a guide table (see wheel).
type weightedRandom struct{ *row }

func (weightedRandom) next(p *pool, t *tier, d draw) int32 {
	return p.sample(t, d.random())
}
