package balancer

// roundRobin takes the instances in turn, each as often as the others, whatever
// their weights. The place to begin is random, so that many clients of one list do
// not walk it in step; a view that replaces another begins anew.
type roundRobin struct{ *row }

func (roundRobin) next(p *pool, t *tier, _ draw) int32 {
	return p.place(t.pos(int32(t.turn.Add(1) % uint64(t.n))))
}
