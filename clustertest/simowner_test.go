package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

// held is a lease as its owner knows it, and what the owner was promised.
type held struct {
	id   muster.LeaseID
	ttl  time.Duration
	keys []muster.InstanceKey
	life lifestyle
	// tries are the sendings of heartbeats, and the answers to registrations: those
	// go through the log, and are heard of when they are applied.
	tries []time.Time
	acked time.Time // sending of the last one that was acknowledged
	// hazy: a registration is about whose outcome the owner does not know; it may
	// be applied much later.
	hazy bool
	// alive: the owner beats still.
	alive bool
}

// lifestyle is how an owner lives.
type lifestyle int

const (
	steady lifestyle = iota // beats until the end
	mortal                  // dies without a word, and another comes
	sleepy                  // now and then misses its beats, and wakes about when the lease ends
	lifestyles
)

// owner keeps a lease, and the instances that hang on it, alive.
type owner struct {
	w      *world
	place  int
	life   lifestyle
	ttl    time.Duration
	shared int // instances on a shared lease; 0: one instance on its own
	byName bool
	down   bool // on_expiry down
	node   int  // where it beats
	home   bool // it beats only there
	lives  int
	cur    *held
	die    <-chan struct{} // closed: a mortal one dies now; nil: by chance
}

// populate starts owners with every lifestyle and TTL.
func (w *world) populate(count int, ttls ...time.Duration) {
	for i := range count {
		o := &owner{
			w: w, place: i, life: lifestyle(i % int(lifestyles)), ttl: ttls[w.rng.IntN(len(ttls))],
			byName: w.rng.IntN(2) == 0, down: w.rng.IntN(4) == 0, node: i,
		}
		if w.rng.IntN(3) == 0 {
			o.shared, o.byName = 2, false
		}
		w.wg.Go(o.run)
	}
}

// owner starts one owner of an instance on its own lease, who beats until die is
// closed.
func (w *world) owner(place int, ttl time.Duration, home bool) (o *owner, die chan struct{}) {
	die = make(chan struct{})
	o = &owner{w: w, place: place, ttl: ttl, node: place, home: home, die: die}
	w.wg.Go(o.run)
	return o, die
}

// lease is what the owner holds now.
func (o *owner) lease() held {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	return *o.cur
}

func (o *owner) run() {
	for o.w.ctx.Err() == nil {
		o.lives++
		if !o.register() {
			return
		}
		if again := o.keep(); !again {
			return
		}
		if !o.pause(rand.N(3 * time.Second)) {
			return
		}
	}
}

// pause waits; false: the run is over.
func (o *owner) pause(d time.Duration) bool { return simSleep(o.w.ctx.Done(), d) }

// keep beats until the owner dies and reports whether another is to come.
func (o *owner) keep() (again bool) {
	ctx, cancel := context.WithCancel(o.w.ctx)
	defer cancel()
	if o.die != nil {
		o.w.wg.Go(func() {
			select {
			case <-o.die:
				cancel()
			case <-ctx.Done():
			}
		})
	}
	dies := ctx.Done()
	end := time.Now().Add(o.ttl + rand.N(10*time.Second))
	next := o.ttl / 3
	for {
		if !simSleep(dies, next) {
			o.leave(o.w.ctx.Err() != nil)
			return false
		}
		nap := false
		switch {
		case o.life == mortal && o.die == nil && time.Now().After(end):
			o.leave(false)
			return true
		case o.life == sleepy && rand.N(8) == 0:
			// The last beat was sent next ago; wake when the lease is about to end.
			nap = true
			if !o.pause(max(0, o.ttl-next+rand.N(500*time.Millisecond)-100*time.Millisecond)) {
				o.leave(true)
				return false
			}
		}
		if nap && rand.N(2) == 0 {
			if !o.register() {
				return false
			}
			next = o.ttl / 3
			continue
		}
		var gone bool
		if next, gone = o.beat(); next == 0 && !gone {
			o.leave(true)
			return false
		}
		if gone {
			o.w.mu.Lock()
			o.cur.alive = false
			o.w.mu.Unlock()
			o.lives++
			if !o.register() {
				return false
			}
			next = o.ttl / 3
		}
	}
}

// leave ends the owner; over says that it is because the run is over.
func (o *owner) leave(over bool) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.cur.alive = over
	if !over {
		o.w.traced = append(o.w.traced, fmt.Sprintf("%12v owner %d of %s dies", time.Since(o.w.began), o.place, o.cur.id))
	}
}

// beat sends one heartbeat, to node after node until one answers. It returns when
// to send the next, 0 at the end of the run; gone: register again.
func (o *owner) beat() (next time.Duration, gone bool) {
	for {
		sent := time.Now()
		o.w.mu.Lock()
		o.cur.tries = append(o.cur.tries, sent)
		o.w.mu.Unlock()
		a, err := o.beatAt(o.w.nodes[o.node%len(o.w.nodes)])
		if o.w.ctx.Err() != nil {
			return 0, false
		}
		if err != nil {
			o.move(1)
			select { // a retry is also when it may die
			case <-o.die:
				return o.ttl, false
			default:
			}
			if !o.pause(20 * time.Millisecond) {
				return 0, false
			}
			continue
		}
		o.move(rand.N(len(o.w.nodes)))
		if a.Results[0].State == lease.BeatRenewed {
			o.acked(sent)
			return a.Next, false
		}
		o.unknown()
		return 0, true
	}
}

// move goes on to another node.
func (o *owner) move(by int) {
	if !o.home {
		o.node += by
	}
}

func (o *owner) acked(sent time.Time) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.cur.acked = later(o.cur.acked, sent)
	o.w.acks++
	if *simTrace {
		o.w.traced = append(o.w.traced, fmt.Sprintf("%12v owner %d: %s acknowledged, sent at %v", time.Since(o.w.began), o.place, o.cur.id, sent.Sub(o.w.began)))
	}
}

// unknown is told that there is no such lease: that must be so, and not the
// owner's who has done all he could.
func (o *owner) unknown() {
	o.w.mu.Lock()
	l := *o.cur
	ended, ok := o.w.history.ended(l.keys[0], l.id.Index())
	o.w.mu.Unlock()
	switch {
	case !ok:
		o.w.fail("unknown", "the owner of %s (ttl %v), which lives, was told to register again", l.id, l.ttl)
	case l.life == steady:
		o.w.fail("lost", "%s (ttl %v) ended %v ago, %v after its last acknowledged heartbeat, though its owner kept beating",
			l.id, l.ttl, time.Since(ended), ended.Sub(l.acked))
	}
}

// beatAt beats at one node. The caller gives up soon; the request stays.
func (o *owner) beatAt(n *machine) (lease.Answer, error) {
	p := n.running()
	if p == nil {
		return lease.Answer{}, errSimRefused
	}
	name := lease.Name{Lease: o.cur.id}
	if o.byName {
		name = lease.Name{Instance: o.cur.keys[0]}
	}
	ctx, cancel := context.WithTimeout(o.w.ctx, 150*time.Millisecond)
	defer cancel()
	type answer struct {
		a   lease.Answer
		err error
	}
	got := make(chan answer, 1)
	o.w.wg.Go(func() {
		p.stop.pass(p.dead)
		if p.w.faulty.deaf {
			p.stall.pass(p.dead)
		}
		if p.isDead() {
			return
		}
		a, err := p.keeper.Beat(ctx, []lease.Name{name})
		p.stop.pass(p.dead) // an answer leaves when its process runs
		got <- answer{a, err}
	})
	select {
	case a := <-got:
		if p.isDead() {
			return lease.Answer{}, errSimRefused
		}
		return a.a, a.err
	case <-p.dead:
		return lease.Answer{}, errSimRefused
	case <-ctx.Done():
		return lease.Answer{}, ctx.Err()
	}
}

// register registers the owner's instances, again if they are there; false: the
// run is over.
func (o *owner) register() bool {
	var id muster.LeaseID
	if o.shared > 0 {
		if o.cur != nil && o.cur.alive {
			id = o.cur.id // registered again on the same lease, if it is there
		} else {
			res, _, _, ok := o.propose(fsm.GrantLease{TTL: muster.TTL(o.ttl), Name: "shared"})
			if !ok {
				return false
			}
			id = res.Lease.ID
		}
	}
	var keys []muster.InstanceKey
	var first, last, sent time.Time
	hazy := false
	for i := range max(1, o.shared) {
		inst := o.instance(i, id)
		keys = append(keys, muster.InstanceKey{Namespace: inst.Namespace, Service: inst.Service, ID: inst.ID})
		res, at, clear, ok := o.propose(fsm.Register{Instance: inst})
		if !ok {
			return false
		}
		if res.Err != nil { // the shared lease ended meanwhile
			o.w.mu.Lock()
			if o.cur != nil {
				o.cur.alive = false
			}
			o.w.mu.Unlock()
			o.lives++
			return o.register()
		}
		last = time.Now()
		if i == 0 {
			first = last
		}
		sent, hazy, id = at, hazy || !clear, res.Instance.LeaseID
		o.touch(id, at, clear)
	}
	o.hold(&held{id: id, ttl: o.ttl, keys: keys, life: o.life, tries: []time.Time{first, last}, acked: sent, hazy: hazy, alive: true})
	return true
}

// touch notes that a registration was acknowledged that touched the present lease.
func (o *owner) touch(id muster.LeaseID, sent time.Time, clear bool) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	if o.cur != nil && o.cur.id == id {
		o.cur.tries = append(o.cur.tries, time.Now())
		o.cur.acked, o.cur.hazy = later(o.cur.acked, sent), o.cur.hazy || !clear
	}
}

// hold remembers a lease that was granted.
func (o *owner) hold(l *held) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.w.acks++
	if o.cur != nil && o.cur.id == l.id {
		o.cur.alive = true
		return
	}
	if o.cur != nil {
		o.cur.alive = false
	}
	o.cur = l
	o.w.leases = append(o.w.leases, l)
}

// instance is the i-th instance of this life of the owner's.
func (o *owner) instance(i int, id muster.LeaseID) *muster.Instance {
	inst := &muster.Instance{
		Service: fmt.Sprintf("s%d", o.place%3), ID: fmt.Sprintf("o%d-%d-%d", o.place, o.lives, i),
		Address: "10.0.0.1", Port: 80, Weight: 1, LeaseID: id,
	}
	if o.shared == 0 {
		inst.TTL = muster.TTL(o.ttl)
	}
	if o.down {
		inst.OnExpiry, inst.RemoveAfter = muster.ExpiryDown, muster.Duration(4*time.Second)
	}
	if err := inst.Normalize(); err != nil {
		panic(err)
	}
	return inst
}

// propose has an operation applied, at node after node. sent is when the one was
// sent that succeeded; clear: there was no other whose outcome is unknown.
func (o *owner) propose(op fsm.Op) (res fsm.Result, sent time.Time, clear, ok bool) {
	body := fsm.Encode(op)
	clear = true
	for ; ; o.node++ {
		if p := o.w.nodes[o.node%len(o.w.nodes)].running(); p != nil {
			ctx, cancel := context.WithTimeout(o.w.ctx, 500*time.Millisecond)
			type answer struct {
				res fsm.Result
				err error
			}
			got := make(chan answer, 1)
			sent = time.Now()
			o.w.wg.Go(func() {
				p.stop.pass(p.dead)
				res, err := p.propose(ctx, body)
				p.stop.pass(p.dead)
				got <- answer{res, err}
			})
			err := errSimLost
			select {
			case a := <-got:
				res, err = a.res, a.err
			case <-p.dead:
			case <-ctx.Done():
			}
			cancel()
			if err == nil && !p.isDead() {
				return res, sent, clear, true
			}
			clear = clear && errors.Is(err, muster.CodeNoLeader)
		}
		if !o.pause(50 * time.Millisecond) {
			return res, sent, false, false
		}
	}
}
