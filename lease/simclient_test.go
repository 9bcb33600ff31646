package lease_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/lease"
)

// simClient is the owner of one lease: it registers, beats as it is told to, and
// remembers what it was promised.
type simClient struct {
	sim  *sim
	key  muster.InstanceKey
	ttl  time.Duration
	by   bool // beats by name
	node int  // where it beats
	die  chan struct{}

	mu       sync.Mutex
	id       muster.LeaseID
	sent     time.Time // of the last heartbeat
	promised time.Time // sending of the last one that was acknowledged
	acks     int
	unknown  time.Time // when it was told to register again
}

// client registers an instance of a service on a lease of its own and keeps it
// alive until killed.
func (s *sim) client(service string, n int, ttl time.Duration) *simClient {
	c := s.owner(service, n, ttl)
	s.wg.Go(c.run)
	return c
}

func (s *sim) owner(service string, n int, ttl time.Duration) *simClient {
	return &simClient{
		sim: s, ttl: ttl, by: n%2 == 1, node: n, die: make(chan struct{}),
		key: muster.InstanceKey{Namespace: "default", Service: service, ID: fmt.Sprint(n)},
	}
}

func (c *simClient) kill() { close(c.die) }

// register proposes the registration until it is committed.
func (c *simClient) register() bool {
	for {
		ctx, cancel := context.WithTimeout(c.sim.ctx, 2*time.Second)
		sent := time.Now()
		id, ok := c.grant(ctx)
		cancel()
		if ok {
			c.mu.Lock()
			c.id, c.sent, c.promised = id, sent, sent
			c.mu.Unlock()
			return true
		}
		if !wait(c.sim.ctx, 100*time.Millisecond) {
			return false
		}
	}
}

func (c *simClient) grant(ctx context.Context) (muster.LeaseID, bool) {
	s := c.sim
	s.mu.Lock()
	leader, term := s.leader, s.term
	s.mu.Unlock()
	if leader == nil || !s.runs(leader) {
		return 0, false
	}
	index, err := s.propose(ctx, leader, term, func(n *simNode, e *simEntry, ch *lease.Changes) {
		id := muster.MakeLeaseID(uint64(e.index), 0)
		l := &simLease{key: c.key, Record: lease.Record{
			ID: id, TTL: c.ttl, Generation: uint64(e.index),
			Services: []muster.ServiceKey{{Namespace: c.key.Namespace, Service: c.key.Service}},
		}}
		n.leases[id], n.byKey[c.key] = l, id
		ch.Leases = append(ch.Leases, lease.Change{Record: l.Record, Heard: true})
	})
	return muster.MakeLeaseID(index, 0), err == nil
}

func (c *simClient) run() {
	if !c.register() {
		return
	}
	pace := c.ttl / 3
	for {
		t := time.NewTimer(pace)
		select {
		case <-c.die:
			t.Stop()
			return
		case <-c.sim.ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if !c.beat(&pace) {
			return
		}
	}
}

// beat sends one heartbeat, at node after node until one answers. It reports
// whether the lease lives.
func (c *simClient) beat(pace *time.Duration) bool {
	for ; ; c.node++ {
		select {
		case <-c.die:
			return false
		case <-c.sim.ctx.Done():
			return false
		default:
		}
		n := c.sim.nodes[c.node%len(c.sim.nodes)]
		ctx, cancel := context.WithTimeout(c.sim.ctx, 300*time.Millisecond)
		a, sent, err := c.beatAt(ctx, n)
		cancel()
		c.mu.Lock()
		c.sent = sent
		switch {
		case err != nil:
		case a.Results[0].State == lease.BeatRenewed:
			c.promised = sent
			c.acks++
			*pace = a.Next
			c.mu.Unlock()
			return true
		default:
			c.unknown = time.Now()
			c.mu.Unlock()
			return false
		}
		c.mu.Unlock()
		wait(c.sim.ctx, 20*time.Millisecond)
	}
}

// beatAt beats at one node, which may be paused: the caller gives up then, the
// request stays.
func (c *simClient) beatAt(ctx context.Context, n *simNode) (lease.Answer, time.Time, error) {
	name := lease.Name{Lease: c.lease()}
	if c.by {
		name = lease.Name{Instance: c.key}
	}
	type answer struct {
		lease.Answer
		err error
	}
	sent := time.Now()
	got := make(chan answer, 1)
	c.sim.wg.Go(func() {
		n.gate()
		n.mu.Lock()
		k := n.keeper
		n.mu.Unlock()
		a, err := k.Beat(ctx, []lease.Name{name})
		n.gate() // the answer leaves when the node runs
		got <- answer{a, err}
	})
	select {
	case a := <-got:
		return a.Answer, sent, a.err
	case <-ctx.Done():
		return lease.Answer{}, sent, ctx.Err()
	}
}

func (c *simClient) lease() muster.LeaseID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// check reports a promise that was broken: an end earlier than TTL after the
// sending of an acknowledged heartbeat.
func (c *simClient) check() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.sim.ended(c.id); ok && at.Before(c.promised.Add(c.ttl)) {
		c.sim.t.Errorf("early expiry of %s: promised until %v after its last acknowledged heartbeat, ended after %v",
			c.id, c.ttl, at.Sub(c.promised))
	}
	if _, ok := c.sim.ended(c.id); !ok && !c.unknown.IsZero() {
		c.sim.t.Errorf("the owner of %s, which lives, was told to register again", c.id)
	}
}

// late is how long after its TTL, counted from the last heartbeat sent, the lease
// ended.
func (c *simClient) late() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.sim.ended(c.id)
	if !ok {
		c.sim.t.Errorf("lease %s has not ended", c.id)
		return 0
	}
	return at.Sub(c.sent) - c.ttl
}

func (c *simClient) lives() bool {
	_, ended := c.sim.ended(c.lease())
	return !ended
}
