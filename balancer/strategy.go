package balancer

import (
	"math/bits"
	"slices"

	"github.com/muster-registry/muster"
)

// Strategy is one way of choosing. The strategies are the rows of a table, see
// Strategies; there are no others.
type Strategy interface {
	// Name is the strategy's name in the API.
	Name() string
	// Keyed reports whether it goes by Request.Key and refuses to do without.
	Keyed() bool
	// Weighted reports whether weights, and with them slow start, count.
	Weighted() bool

	traits() *row
	// next chooses a place of p's roster, from t, which is a part of p with at least
	// one instance. It is called concurrently and must neither allocate nor lock.
	next(p *pool, t *tier, d draw) int32
}

// row is what the Balancer has to know of a strategy.
type row struct {
	name     string
	place    int  // in the table
	keyed    bool // needs a key
	weighted bool
	learns   bool // reads what was learnt of the instances
	counts   bool // counts its choice as in flight by itself
}

func (r *row) Name() string   { return r.name }
func (r *row) Keyed() bool    { return r.keyed }
func (r *row) Weighted() bool { return r.weighted }
func (r *row) traits() *row   { return r }

// draw is what a strategy may go by.
type draw struct {
	random func() uint64
	key    uint64 // hash of the key, 0 where the strategy has none
	at     moment
	try    uint32 // 0 for a pick; higher for each further one that is to differ
	count  bool   // the choice will count as in flight
}

// table is all there is to choose by. The code of each row stands in its own file.
var table = numbered(
	roundRobin{&row{name: muster.StrategyRoundRobin}},
	weightedRoundRobin{&row{name: muster.StrategyWeightedRoundRobin, weighted: true}},
	random{&row{name: muster.StrategyRandom}},
	weightedRandom{&row{name: muster.StrategyWeightedRandom, weighted: true}},
	leastRequest{&row{name: muster.StrategyLeastRequest, weighted: true, learns: true}},
	ewma{&row{name: muster.StrategyEWMA, weighted: true, learns: true}},
	consistentHash{&row{name: muster.StrategyConsistentHash, weighted: true, keyed: true}},
	boundedHash{&row{name: muster.StrategyBoundedHash, weighted: true, keyed: true, learns: true, counts: true}},
	rendezvous{&row{name: muster.StrategyRendezvous, weighted: true, keyed: true}},
)

func numbered(rows ...Strategy) []Strategy {
	for n, s := range rows {
		s.traits().place = n
	}
	return rows
}

// Strategies returns all strategies, the default first.
func Strategies() []Strategy { return slices.Clone(table) }

// ParseStrategy finds a strategy by its name; the error is invalid_strategy.
func ParseStrategy(name string) (Strategy, error) {
	for _, s := range table {
		if s.Name() == name {
			return s, nil
		}
	}
	return nil, muster.InvalidStrategy(name)
}

func needsKey(name string) error {
	return muster.Errorf(muster.CodeInvalidStrategy, "strategy %s needs a key", name).
		WithHint("send key= with what the choice is to stick to, such as a user or a session")
}

// mix is the finalizer of MurmurHash3 (Appleby 2011): every bit of x changes every
// bit of the result with even odds.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// scale maps a random u onto 0 … n-1 without a division (Lemire 2019); the bias is
// below n/2^64.
func scale(u, n uint64) uint64 {
	hi, _ := bits.Mul64(u, n)
	return hi
}
