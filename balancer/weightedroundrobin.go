package balancer

import (
	"math"
	"slices"
)

// weightedRoundRobin takes the instances in turn, in proportion to their weights
// and without bursts to the heavy ones.
//
// Where the weights, by their lowest terms, add up to little, the turns are those
// of nginx's smooth weighted round robin (its commit 52327e0627f4, 2012): weights
// 5, 1, 1 give a a b a c a a. They are played through once and kept.
//
// That schedule is as long as the sum of the weights, and playing it through costs
// as many rounds over all instances. Where it is long there is none: turn k goes to
// the owner of the point k·s mod W on a line of length W, where each instance owns
// a stretch as long as its weight. With s prime to W every point comes once in W
// turns, so that the shares are exact. With a good s the points of any few turns lie
// about as evenly as points can, so that a heavy instance comes as regularly as its
// weight allows and no run of turns is far from the shares: the discrepancy of such
// a sequence goes by the partial quotients of the continued fraction of s/W, which
// are all 1 for the golden section (Niederreiter, Random Number Generation and
// Quasi-Monte Carlo Methods, 1992, §3.1 and §5.1).
type weightedRoundRobin struct{ *row }

func (weightedRoundRobin) next(p *pool, t *tier, _ draw) int32 {
	if p.roster.weights == nil {
		return p.place(t.pos(int32(t.turn.Add(1) % uint64(t.n))))
	}
	s := t.rounds(p)
	if s.turns != nil {
		return p.place(s.turns[t.turn.Add(1)%uint64(len(s.turns))])
	}
	return p.place(t.find(p, t.phase.Add(s.step)%t.total))
}

// maxTurns bounds the schedules that are played through.
const maxTurns = 1024

// rounds is the order of turns within a tier.
type rounds struct {
	turns []int32 // positions; nil where step makes the order
	step  uint64
}

// rounds returns the order of t's turns, made at the first call.
func (t *tier) rounds(p *pool) *rounds {
	t.roundsOnce.Do(func() {
		p.weigh()
		if t.total <= maxTurns {
			t.order.turns = smoothTurns(p, t)
		} else {
			t.order.step = evenStep(t.total)
		}
	})
	return &t.order
}

// smoothTurns plays nginx's algorithm through: in each turn everybody gains its
// weight, and whoever has most is taken and pays the sum.
func smoothTurns(p *pool, t *tier) []int32 {
	weights := make([]int64, t.n)
	have := make([]int64, t.n)
	var divisor uint64
	for k := range weights {
		w := p.roster.weights[p.place(t.pos(int32(k)))]
		weights[k] = int64(w)
		divisor = gcd(divisor, uint64(w))
	}
	sum := int64(t.total / divisor)
	turns := make([]int32, sum)
	for n := range turns {
		best := 0
		for k, w := range weights {
			have[k] += w / int64(divisor)
			if have[k] > have[best] {
				best = k
			}
		}
		have[best] -= sum
		turns[n] = t.pos(int32(best))
	}
	return slices.Clip(turns)
}

// evenStep is, of the numbers near total/φ, the one that is prime to total and
// whose steps spread most evenly.
func evenStep(total uint64) uint64 {
	const candidates = 512
	first := uint64(float64(total)/math.Phi) - candidates/2
	best, least := uint64(1), total
	for s := first; s < first+candidates; s++ {
		if q, prime := quotients(s, total); prime && q < least {
			best, least = s, q
		}
	}
	return best
}

// quotients is the sum of the partial quotients of the continued fraction of s/w;
// prime says that the two have no common factor.
func quotients(s, w uint64) (sum uint64, prime bool) {
	for s != 0 {
		sum += w / s
		w, s = s, w%s
	}
	return sum, w == 1
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
