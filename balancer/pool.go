package balancer

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// seat is what a Balancer keeps with a view.
type seat struct {
	b       *Balancer
	view    *muster.View
	current atomic.Pointer[pool]
	mu      sync.Mutex // held by the one that builds the next pool
}

// pool returns the pool that holds at the moment. Once there is one, nobody waits
// for the next: while somebody builds it, the others go on with the old one.
func (s *seat) pool(now time.Time, at moment) *pool {
	p := s.current.Load()
	if p != nil && p.holds(at) {
		return p
	}
	return s.renew(now, at)
}

func (s *seat) renew(now time.Time, at moment) *pool {
	old := s.current.Load()
	if old == nil {
		s.mu.Lock()
	} else if !s.mu.TryLock() {
		return old
	}
	defer s.mu.Unlock()
	old = s.current.Load()
	if old != nil && old.holds(at) {
		return old
	}
	p := s.build(old, now, at)
	s.current.Store(p)
	s.b.metrics.pools.Inc()
	return p
}

// pool is who may be picked from a view between two changes of what is known of
// its instances. It is immutable but for counters and what is made on demand.
//
// A place is an index into the roster, a position one into those of it that are in.
type pool struct {
	svc      *service
	gen      uint64 // of the service's knowledge, when the pool was made
	until    moment // when the pool ends by itself
	settings *muster.Settings
	strategy Strategy
	view     *muster.View
	roster   *roster
	whole    bool // of the whole service
	panic    bool
	result   int           // for the metrics
	nobody   *muster.Error // why there is nobody to pick, if so

	places []int32 // place of each position; nil: they are the same
	state  []stand // of each place; nil: all are in
	trials []trial // who is on trial, by place

	all        tier
	wheelOnce  sync.Once
	wheel      *wheel
	meanWeight float64
	zonesOnce  sync.Once
	zones      map[string]*zone
}

// stand is how an instance stands in a pool.
type stand uint8

const (
	in    stand = iota
	out         // ejected
	tried       // half-open
)

// trial is an instance on trial.
type trial struct {
	place int32
	rec   *record
}

func (p *pool) holds(at moment) bool { return p.gen == p.svc.gen.Load() && at < p.until }

// place returns the place of a position.
func (p *pool) place(pos int32) int32 {
	if p.places != nil {
		return p.places[pos]
	}
	return pos
}

// isIn reports whether the instance at a place is neither ejected nor on trial.
func (p *pool) isIn(place int32) bool { return p.state == nil || p.state[place] == in }

// admits reports whether the instance at a place may be picked now. Of one on trial
// that takes one of the few picks it is granted.
func (p *pool) admits(place int32, at moment) bool {
	if p.state == nil || p.state[place] == in {
		return true
	}
	if p.state[place] == tried {
		for _, t := range p.trials {
			if t.place == place {
				return t.rec.admit(at)
			}
		}
	}
	return false
}

// trialOdds is one in how many picks may go to an instance on trial.
const trialOdds = 8

// trial returns, now and then, the place of an instance of t that is on trial, and
// otherwise a negative number.
func (p *pool) trial(t *tier, d draw) int32 {
	u := d.random()
	if u%trialOdds != 0 {
		return -1
	}
	tr := p.trials[scale(mix(u), uint64(len(p.trials)))]
	if !t.span.has(tr.place) || t.rest && t.skip.has(tr.place) || !tr.rec.admit(d.at) {
		return -1
	}
	return tr.place
}

// weigh makes the pool's wheel, at the first call.
func (p *pool) weigh() {
	p.wheelOnce.Do(func() {
		p.wheel = newWheel(int(p.all.n), func(pos int) uint32 { return p.roster.weight(p.place(int32(pos))) })
		p.all.width, p.all.total = p.wheel.sum(), p.wheel.sum()
	})
}

// sample returns a place of t, by weight; u is a random number.
func (p *pool) sample(t *tier, u uint64) int32 {
	if p.roster.weights == nil {
		return p.place(t.pos(int32(scale(u, uint64(t.n)))))
	}
	p.weigh()
	return p.place(t.find(p, scale(u, t.total)))
}

// tier is the part of a pool one pick chooses from: all positions, those of a zone,
// or the rest.
type tier struct {
	span *span // of the roster, to find keys in
	skip *span // rest: the zone's
	rest bool  // everything but the stretch
	// lo is where the stretch begins, gap how long it is; n is how many positions
	// the tier has.
	lo, gap, n int32
	// base and width are the stretch on the wheel, total is the tier's weight. Only
	// after weigh.
	base, width, total uint64

	roundsOnce sync.Once
	order      rounds

	_         [64]byte      // what picks write stays off the cache line that all of them read
	turn      atomic.Uint64 // of the strategies that take turns
	phase     atomic.Uint64 // of turns by steps
	sum, left atomic.Int64  // of recount
}

// pos returns the k-th position of the tier.
func (t *tier) pos(k int32) int32 {
	if !t.rest {
		return t.lo + k
	}
	if k >= t.lo {
		k += t.gap
	}
	return k
}

// find returns the position that owns point x of the tier's line.
func (t *tier) find(p *pool, x uint64) int32 {
	if !t.rest {
		x += t.base
	} else if x >= t.base {
		x += t.width
	}
	return p.wheel.find(x)
}

// weight is the sum of the tier's weights.
func (t *tier) weight(p *pool) uint64 {
	if p.roster.weights == nil {
		return uint64(t.n)
	}
	p.weigh()
	return t.total
}

// begin sets where turns begin.
func (t *tier) begin(turn, phase uint64) {
	t.turn.Store(turn)
	t.phase.Store(phase)
}

// never is a moment that does not come.
const never = moment(math.MaxInt64)
