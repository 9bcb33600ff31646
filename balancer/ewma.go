package balancer

// ewma draws two instances, with chances in proportion to their weights, and takes
// the one where a request would wait less: its latency times the requests that
// would then be in flight there. The latency is a moving average that jumps to
// every peak and falls slowly, and that is forgotten while nothing is measured, so
// that a slow instance is tried again. One never measured is tried while nothing
// is in flight on it; where nothing is measured at all, the requests in flight
// decide as in least_request.
//
// From Twitter's Finagle (P2CPeakEwma), later of Linkerd.
type ewma struct{ *row }

func (ewma) next(p *pool, t *tier, d draw) int32 {
	x, y := p.two(t, d)
	a, b := p.roster.word(x).read(d.at), p.roster.word(y).read(d.at)
	if b.wait(p, y) < a.wait(p, x) {
		return y
	}
	return x
}

// unmeasured is the latency presumed, in nanoseconds, of an instance that has
// requests in flight and has never answered one: longer than any that answers.
const unmeasured = 1e15

// wait is how long a request would take on the instance at a place. The requests in
// flight count by its weight, so that one twice as strong may hold twice as many.
func (r reading) wait(p *pool, place int32) float64 {
	inflight := float64(r.inflight)
	if r.inflight > 0 {
		inflight *= p.meanWeight / float64(p.roster.weight(place))
	}
	if r.cost == 0 {
		return unmeasured * inflight
	}
	return r.latency() * (1 + inflight)
}
