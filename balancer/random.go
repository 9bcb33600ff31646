package balancer

// random takes any instance, all with the same chance.
type random struct{ *row }

func (random) next(p *pool, t *tier, d draw) int32 {
	return p.place(t.pos(int32(scale(d.random(), uint64(t.n)))))
}
