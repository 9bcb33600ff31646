package health

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

// Supervisor is a node's part in checking instances: it makes the probes of the
// checks that this node owns and tells the leader what it holds of them, and while
// the node leads it decides. It is safe for concurrent use.
type Supervisor struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	boot    uint64

	probing sync.WaitGroup
	due     chan struct{} // a token when a probe may have become due earlier
	news    chan struct{} // a token when there may be something to report

	// mu guards all below, and everything that hangs on it. Nothing is called under
	// it but State.Expired and what only computes.
	mu       sync.Mutex
	roster   map[muster.InstanceKey]*target
	set      *probers
	term     uint64 // of the session that the set is of
	version  uint64 // of the set
	queue    schedule
	gates    map[string]*gate
	inFlight int
	dirty    map[*probe]struct{} // opinions that the leader has not heard
	session  *session

	conflicts map[Conflict]bool // known; of the goroutine that leads
}

// target is one life of an instance that declares checks.
type target struct {
	key    muster.InstanceKey
	inst   *muster.Instance // as it was last changed
	probes []*probe         // by the checks' places; nil where this node is no owner
}

// probe is a check that this node owns.
type probe struct {
	t       *target
	place   int
	machine Machine
	// vouched: this node has seen itself what the machine says. Before that it only
	// says what was known already.
	vouched bool
	last    Result
	spoken  uint64 // counts the opinions; one that was sent is dirty no more

	at      time.Time // of the next run
	turn    bool      // the gate has given a turn, at that time
	first   bool      // no probe has been made yet
	running bool
	gone    bool // owned no more
	slot    int  // in the schedule; -1: not in it
}

func (p *probe) check() *muster.Check { return &p.t.inst.Checks[p.place] }

// New returns a supervisor and hangs its messages on deps.Peers. It starts
// nothing. The caller passes every batch of applied entries to Observe, runs Run,
// and calls Lead for every session.
func New(cfg Config, deps Deps) (*Supervisor, error) {
	if deps.State == nil || deps.Log == nil || deps.Raft == nil || deps.Peers == nil || deps.Guard == nil {
		return nil, errors.New("health: State, Log, Raft, Peers and Guard are needed")
	}
	s := &Supervisor{
		cfg: cfg.withDefaults(), deps: deps, log: deps.Logger, boot: rand.Uint64() | 1,
		due: make(chan struct{}, 1), news: make(chan struct{}, 1),
		roster: make(map[muster.InstanceKey]*target), set: newProbers(nil),
		gates: make(map[string]*gate), dirty: make(map[*probe]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.metrics, err = newMetrics(deps.Registerer); err != nil {
		return nil, err
	}
	deps.Peers.Handle(methodReport, s.handleReport)
	return s, nil
}

// Run makes probes and reports until ctx ends, and returns when all goroutines
// have.
func (s *Supervisor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.reportLoop(ctx) })
	s.probeLoop(ctx)
	wg.Wait()
	s.probing.Wait()
	return nil
}

// Observe follows the replicated state. It is called for every batch of applied
// entries, in order. It does not block on anything but a short lock, except that
// a reset reads all instances.
func (s *Supervisor) Observe(c Changes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if c.Reset {
		known := s.roster
		s.roster = make(map[muster.InstanceKey]*target)
		for i := range s.deps.State.Instances {
			s.roster[keyOf(i)] = known[keyOf(i)]
			delete(known, keyOf(i))
			s.follow(keyOf(i), i, now)
		}
		for _, t := range known {
			s.release(t)
		}
		return
	}
	for _, ch := range c.Instances {
		s.follow(ch.Key, ch.Instance, now)
	}
}

// follow takes over what became of an instance.
func (s *Supervisor) follow(key muster.InstanceKey, i *muster.Instance, now time.Time) {
	t := s.roster[key]
	if i == nil || len(i.Checks) == 0 || s.deps.State.Expired(i) {
		delete(s.roster, key)
		s.release(t)
		return
	}
	if t != nil && t.inst.ChecksFrom == i.ChecksFrom {
		t.inst = i
		t.reseed()
	} else {
		s.release(t)
		t = &target{key: key, inst: i, probes: make([]*probe, len(i.Checks))}
		s.roster[key] = t
		s.own(t, now)
	}
	if s.session != nil {
		s.session.touch(t)
	}
}

// reseed lets probes that have seen nothing themselves follow what is known.
func (t *target) reseed() {
	for _, p := range t.probes {
		if p != nil && !p.vouched && p.machine.State != p.check().Status {
			p.machine = NewMachine(p.check(), p.check().Status)
		}
	}
}

// release ends all probes of t, which may be nil.
func (s *Supervisor) release(t *target) {
	if t == nil {
		return
	}
	for place := range t.probes {
		s.disown(t, place)
	}
	if s.session != nil {
		s.session.drop(t)
	}
}

func (s *Supervisor) disown(t *target, place int) {
	p := t.probes[place]
	if p == nil {
		return
	}
	t.probes[place] = nil
	p.gone = true
	delete(s.dirty, p)
	if p.slot >= 0 {
		heap.Remove(&s.queue, p.slot)
	}
	s.metrics.owned.Dec()
}

// own begins and ends probes of t as the set of probers says.
func (s *Supervisor) own(t *target, now time.Time) {
	self := s.deps.Raft.ID()
	for place := range t.probes {
		hash := checkHash(t.key, place)
		first, second := s.set.owners(hash)
		mine := self == first || self == second
		switch p := t.probes[place]; {
		case mine && p == nil:
			c := &t.inst.Checks[place]
			p = &probe{t: t, place: place, slot: -1, machine: NewMachine(c, c.Status), first: true}
			t.probes[place] = p
			s.metrics.owned.Inc()
			p.at = now.Add(phase(c, hash, self == first))
			s.push(p)
		case !mine && p != nil:
			s.disown(t, place)
		}
	}
}

// firstWithin is within what time the first probe of a new check is made.
const firstWithin = time.Second

// phase is when, from now, a check is probed first: spread evenly over its
// interval, the two owners half of it apart. One of which nothing is known is not
// kept waiting for long.
func phase(c *muster.Check, hash uint64, first bool) time.Duration {
	over := time.Duration(c.Interval)
	if c.Status != muster.StatusUp && c.Status != muster.StatusDown {
		over = min(over, firstWithin)
	}
	at := mix(hash + 1)
	if !first {
		at += 1 << 63
	}
	return time.Duration(float64(at) / (1 << 64) * float64(over))
}

// adopt takes over the set of probers of a session. It reports whether opinions
// are to be sent again.
func (s *Supervisor) adopt(r *receipt, now time.Time) bool {
	if r.term < s.term || r.term == s.term && r.version == s.version {
		return false // of a leader of the past, or known
	}
	s.term, s.version = r.term, r.version
	s.set = newProbers(r.probers)
	for _, t := range s.roster {
		s.own(t, now)
		for _, p := range t.probes {
			if p != nil && p.vouched {
				s.dirty[p] = struct{}{}
			}
		}
	}
	return true
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
