package clustertest_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

// oldTerm is a consensus whose term is never newer than anybody's.
type oldTerm struct{ *process }

func (oldTerm) CurrentTerm() uint64 { return 0 }

// forgetful peers acknowledge renewals and do not merge them: the ids are taken out
// of the message.
type forgetful struct{ *process }

func (f forgetful) Handle(method string, fn handlerFunc) {
	if method == "renew" {
		whole := fn
		fn = func(ctx context.Context, from string, body []byte) ([]byte, error) {
			return whole(ctx, from, without(body, 3))
		}
	}
	f.process.Handle(method, fn)
}

// without takes a field out of a message.
func without(b []byte, field protowire.Number) (out []byte) {
	for len(b) > 0 {
		num, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return out
		}
		if num != field {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}

// deafPeers do not hear while they are stalled.
type deafPeers struct{ *process }

func (d deafPeers) Handle(method string, fn handlerFunc) {
	d.process.Handle(method, func(ctx context.Context, from string, body []byte) ([]byte, error) {
		d.stall.pass(d.dead)
		return fn(ctx, from, body)
	})
}

// inherit keeps a decision, and has it applied when another has led for a while, as
// if it were his.
func inherit(p *process, term uint64, d lease.Decision) {
	p.handOn(term, func(q *process, now uint64) fsm.Op { return simDecision(q.n.id, now, d) })
}

// belate keeps a decision in the same way, and it says whose it is.
func belate(p *process, term uint64, d lease.Decision) {
	p.handOn(term, func(q *process, _ uint64) fsm.Op { return simDecision(q.n.id, term, d) })
}

// handOn has an operation applied by another than who led in that term.
func (p *process) handOn(term uint64, op func(q *process, now uint64) fsm.Op) {
	for simSleep(p.w.ctx.Done(), time.Second) {
		n := p.w.leader()
		if n == nil {
			continue
		}
		q := n.running()
		if s := q.session.Load(); s != nil && s.term > term {
			if simSleep(p.w.ctx.Done(), time.Second) {
				_, _ = q.ship(p.w.ctx, [][]byte{fsm.Encode(op(q, s.term))})
			}
			return
		}
	}
}

// TestSimulationFindsFaults breaks one thing the keeper stands on at a time: the
// checks must find it, and must find nothing where it is whole.
func TestSimulationFindsFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		faulty faulty
		finds  string
		play   func(w *world)
	}{
		{"a term that is too old", faulty{raft: func(p *process) lease.Raft { return oldTerm{p} }}, "early", deposed},
		{"acknowledged and not merged", faulty{peers: func(p *process) lease.Peers { return forgetful{p} }}, "early", killed},
		{"a fast clock", faulty{now: func(p *process) time.Time {
			p.stop.pass(p.dead)
			return time.Now().Add(time.Since(p.w.began) / 2)
		}}, "early", quiet},
		{"a decision for another's term", faulty{decide: inherit}, "early", inherited},
		{"a stall that is not seen", faulty{deaf: true, peers: func(p *process) lease.Peers { return deafPeers{p} }, now: func(p *process) time.Time {
			p.stop.pass(p.dead)
			return time.Now()
		}}, "lost", stalled},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulate(t, options{nodes: 3, seed: 1}, c.play).report(t)
			w := simulate(t, options{nodes: 3, seed: 1, faulty: c.faulty}, c.play)
			if w.broken(c.finds) == 0 {
				t.Errorf("got %v, want %s", w.violations, c.finds)
				for _, line := range w.traced {
					t.Log(line)
				}
			}
		})
	}
}

// TestSimulationOldDecisions has decisions come when they are no longer true: nothing
// ends by them.
func TestSimulationOldDecisions(t *testing.T) {
	for _, c := range []struct {
		name   string
		faulty faulty
		play   func(w *world)
	}{
		{"of another term", faulty{decide: belate}, inherited},
		{"of before a registration", faulty{queued: time.Second}, renewed},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := simulate(t, options{nodes: 3, seed: 1, faulty: c.faulty}, c.play)
			w.report(t)
		})
	}
}

// renewed has an owner register again, identically, while the decision to end its
// lease waits to be proposed.
func renewed(w *world) {
	const ttl = 3 * time.Second
	o := &owner{w: w, ttl: ttl, node: w.leader().index}
	o.register()
	w.sleep(ttl + 500*time.Millisecond)
	o.register()
	w.sleep(2 * time.Second)
	o.leave(false)
	w.finish(3 * ttl)
	if !w.queued {
		w.fail("state", "no decision waited")
	}
}

// firstQueued reports whether this is the decision that has to wait.
func (w *world) firstQueued() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := w.faulty.queued > 0 && !w.queued
	w.queued = w.queued || first
	return first
}

// deposed has a leader whose main loop hangs while another is elected, so that it
// goes on taking heartbeats. It reaches one voter, who knows better, but not its
// successor; the owner who beats there dies then.
func deposed(w *world) {
	const ttl = 5 * time.Second
	old := w.leader()
	_, die := w.owner(old.index, ttl, true)
	w.sleep(2*ttl + time.Second)
	release := w.hang(old)
	w.owner(7, ttl, false) // something to write
	w.sleep(100 * time.Millisecond)
	mend := w.isolation(old)
	before := w.failovers()
	w.await(4*time.Second, func() bool { return w.failovers() > before })
	next := w.leader()
	apart := w.sever(link{old.index, next.index}, link{next.index, old.index})
	mend()
	w.sleep(3 * time.Second)
	close(die)
	w.sleep(200 * time.Millisecond)
	release()
	apart()
	w.finish(3 * ttl)
}

// killed kills the leader, right after an owner has died.
func killed(w *world) {
	const ttl = 3 * time.Second
	_, die := w.owner(0, ttl, false)
	w.owner(1, ttl, false)
	w.sleep(3 * ttl)
	close(die)
	n := w.leader()
	w.kill(n)
	w.sleep(3 * time.Second)
	w.start(n)
	w.finish(3 * ttl)
}

// quiet lets nothing happen but the death of an owner.
func quiet(w *world) {
	_, die := w.owner(0, 3*time.Second, false)
	w.sleep(5 * time.Second)
	close(die)
	w.finish(9 * time.Second)
}

// inherited has a lease run out whose owner was cut off with the node he beats at,
// and all nodes restarted right after: he is heard again, under another leader.
func inherited(w *world) {
	const ttl = 3 * time.Second
	home := w.nodes[(w.leader().index+1)%3]
	o := &owner{w: w, ttl: ttl, life: mortal, node: home.index, home: true, die: make(chan struct{})}
	w.wg.Go(o.run)
	w.sleep(2 * ttl)
	mend := w.isolation(home)
	w.sleep(ttl + 300*time.Millisecond)
	mend()
	w.downtimeAll(nil)()
	w.finish(4 * ttl)
}

// stalled stops the leader's keeper, and nothing else, for longer than a TTL.
func stalled(w *world) {
	for i := range 3 {
		w.owner(i, time.Second, false)
	}
	w.sleep(5 * time.Second)
	start := w.stallLeader(w.leader())
	w.sleep(3 * time.Second)
	start()
	w.finish(5 * time.Second)
}
