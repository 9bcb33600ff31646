//go:build sim

package clustertest_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
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

// anyLeader takes a decision to whoever leads, as if it were his.
func anyLeader(ctx context.Context, p *process, ops [][]byte) ([][]byte, error) {
	n := p.w.leader()
	if n == nil || n != p.n && !p.w.linked(p.n.index, n.index) {
		return nil, muster.Errorf(muster.CodeNoLeader, "nobody leads")
	}
	return n.running().ship(ctx, ops)
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
		{"a decision for another's term", faulty{propose: anyLeader}, "early", forgotten},
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

// forgotten cuts a leader off that does not notice it, for longer than a TTL. Then
// it is heard again, and hears nothing.
func forgotten(w *world) {
	const ttl = 3 * time.Second
	old := w.leader()
	w.owner(old.index+1, ttl, true)
	w.owner(old.index+2, ttl, true)
	w.sleep(2*ttl + time.Second)
	release := w.hang(old)
	w.owner(old.index+4, ttl, true)
	w.sleep(100 * time.Millisecond)
	speaks, hears := w.mute(old), w.deaf(old)
	w.sleep(2 * ttl)
	speaks()
	w.sleep(time.Second)
	hears()
	release()
	w.finish(3 * ttl)
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
