package balancer

import (
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
)

// DefaultMaxTickets is how many tickets are kept where Config does not say.
const DefaultMaxTickets = 100_000

// Config is what a Balancer is made from. The zero Config is a balancer that keeps
// to itself, as a client's does.
type Config struct {
	// Node is the id of this node. It begins every ticket, so that another node can
	// pass a report on, and marks the Balancer as one whose Export is called.
	Node string
	// MaxTickets bounds the tickets that wait for their report; beyond it the one
	// nearest to its expiry is given up. 0 is DefaultMaxTickets.
	MaxTickets int
	// Random is the source of all chance, called concurrently; nil is that of
	// math/rand/v2.
	Random func() uint64
	// Logger is told of ejections and returns; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.MaxTickets <= 0 {
		c.MaxTickets = DefaultMaxTickets
	}
	if c.Random == nil {
		c.Random = rand.Uint64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Balancer chooses instances and remembers what became of them. It belongs to one
// cluster, whose indexes never go back.
type Balancer struct {
	cfg     Config
	random  func() uint64
	metrics *metrics
	// deriveKey names this Balancer's part of a view; newSeat makes it.
	deriveKey string
	newSeat   func(*muster.View) any
	// origin is the first time ever given, from which moments are counted.
	origin  atomic.Pointer[time.Time]
	sweepAt atomic.Int64 // the moment of the next sweep
	records atomic.Int64 // of all services

	tickets tickets

	mu       sync.Mutex
	services map[muster.ServiceKey]*service // guarded by mu

	queueMu sync.Mutex
	queue   []*record // guarded by queueMu: what the next Export tells
}

// balancers tells the Balancers of a process apart where they share a view.
var balancers atomic.Uint64

// New makes a Balancer. The only error is that of a registerer that refuses the
// metrics.
func New(cfg Config) (*Balancer, error) {
	cfg = cfg.withDefaults()
	b := &Balancer{
		cfg: cfg, random: cfg.Random, services: map[muster.ServiceKey]*service{},
		deriveKey: "balancer." + strconv.FormatUint(balancers.Add(1), 10),
	}
	b.tickets.init(cfg.MaxTickets)
	b.newSeat = func(v *muster.View) any { return &seat{b: b, view: v} }
	var err error
	b.metrics, err = newMetrics(cfg.Registerer, b)
	return b, err
}

// Request says what is wanted. It is only read.
type Request struct {
	// View is whom to choose from: a service, or what a filter left of it. Its
	// Settings hold.
	View *muster.View
	// Strategy is how; nil is the one of the settings.
	Strategy Strategy
	// Key is what the hash strategies go by; equal keys meet the same instance.
	Key string
	// Zone is preferred; "" for none. Picks spill over to the other zones as the
	// settings' ZoneThreshold says. A panic knows no zones.
	Zone string
}

// Choice is what was picked.
type Choice struct {
	Instance *muster.Instance
	Strategy Strategy
	// Index is the view's.
	Index uint64
	// Panic says that too few instances could be picked, see package doc.
	Panic bool

	rec *record // of the instance, where the choice counts as in flight
}

// Pick chooses an instance. The error is a *[muster.Error]: no_instance, or
// invalid_strategy for a hash strategy without a key.
func (b *Balancer) Pick(now time.Time, r *Request) (Choice, error) {
	return b.pick(now, r, false)
}

// Start is Pick, and counts the choice as in flight until it is given to Done or
// Drop, or until its Ticket is reported or runs out.
func (b *Balancer) Start(now time.Time, r *Request) (Choice, error) {
	return b.pick(now, r, true)
}

func (b *Balancer) pick(now time.Time, r *Request, count bool) (Choice, error) {
	at := b.moment(now)
	if at >= moment(b.tickets.next.Load()) {
		b.tickets.tryExpire(b, at)
	}
	p := r.View.Derive(b.deriveKey, b.newSeat).(*seat).pool(now, at)
	s := r.Strategy
	if s == nil {
		s = p.strategy
	}
	tr := s.traits()
	if p.all.n == 0 {
		b.metrics.picks[tr.place][resultNone].Inc()
		return Choice{}, p.nobody
	}
	if tr.keyed && r.Key == "" {
		return Choice{}, needsKey(tr.name)
	}
	t, d := b.draw(p, r, tr, at)
	d.count = count
	place := int32(-1)
	if len(p.trials) > 0 && !tr.keyed {
		place = p.trial(t, d)
	}
	counted := place < 0 && tr.counts
	if place < 0 {
		place = s.next(p, t, d)
	}
	c := Choice{Instance: p.roster.insts[place], Strategy: s, Index: r.View.Index, Panic: p.panic}
	if count {
		p.roster.learn(p.svc)
		if c.rec = p.roster.record(place); !counted {
			c.rec.begin()
		}
	}
	b.metrics.picks[tr.place][p.result].Inc()
	return c, nil
}

// draw prepares what a strategy goes by, and says from which part of p to choose.
func (b *Balancer) draw(p *pool, r *Request, tr *row, at moment) (*tier, draw) {
	d := draw{random: b.random, at: at}
	if tr.learns {
		p.roster.learn(p.svc)
	}
	if tr.keyed {
		d.key = xxhash.Sum64String(r.Key)
	}
	t := &p.all
	if r.Zone != "" && !p.panic {
		chance := mix(d.key) // the key itself chooses within the part
		if !tr.keyed {
			chance = b.random()
		}
		t = p.zoned(r.Zone, chance)
	}
	return t, d
}

// More returns up to n distinct instances, c's first and the others chosen as by
// more picks for r. Only c counts as in flight.
func (b *Balancer) More(now time.Time, r *Request, c Choice, n int) []*muster.Instance {
	at := b.moment(now)
	p := r.View.Derive(b.deriveKey, b.newSeat).(*seat).pool(now, at)
	got := append(make([]*muster.Instance, 0, min(n, int(p.all.n)+1)), c.Instance)
	add := func(i *muster.Instance) bool {
		for _, g := range got {
			if g.ID == i.ID {
				return len(got) < n
			}
		}
		if len(got) < n {
			got = append(got, i)
		}
		return len(got) < n
	}
	tr := c.Strategy.traits()
	if p.all.n == 0 || !add(c.Instance) {
		return got
	}
	// Asking again is right for every strategy and quick while n is small beside
	// the service; what chance leaves open is filled from the preferred part first.
	for try := range 4*n + 8 {
		t, d := b.draw(p, r, tr, at)
		d.try = uint32(try + 1)
		if !add(p.roster.insts[c.Strategy.next(p, t, d)]) {
			return got
		}
	}
	t, d := b.draw(p, r, tr, at)
	first := mix(d.key)
	if !tr.keyed {
		first = b.random()
	}
	for _, t := range []*tier{t, &p.all} {
		from := scale(first, uint64(t.n))
		for k := range uint64(t.n) {
			if !add(p.roster.insts[p.place(t.pos(int32((from+k)%uint64(t.n))))]) {
				return got
			}
		}
	}
	return got
}

// moment is a time as the Balancer counts it: nanoseconds since an hour before the
// first time it was given, so that a 0 is long past.
type moment int64

const originMoment = moment(time.Hour)

func (b *Balancer) moment(now time.Time) moment {
	origin := b.origin.Load()
	if origin == nil {
		origin = b.begin(now)
	}
	return originMoment + moment(now.Sub(*origin))
}

func (b *Balancer) begin(now time.Time) *time.Time {
	b.origin.CompareAndSwap(nil, &now)
	return b.origin.Load()
}

func (m moment) add(d time.Duration) moment { return m + moment(d) }
