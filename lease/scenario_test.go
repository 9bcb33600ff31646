package lease_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster/lease"
)

// scenario runs fn in virtual time with n clients of that TTL, which beat for a
// while before it.
func scenario(t *testing.T, n int, ttl time.Duration, fn func(s *sim, cs []*simClient), opts ...func(*sim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3, opts...)
		var cs []*simClient
		for i := range n {
			cs = append(cs, s.client("web", i, ttl))
		}
		wait(s.ctx, 2*ttl+2*time.Second)
		fn(s, cs)
		for _, c := range cs {
			c.check()
			if c.acks == 0 {
				s.t.Errorf("lease %s was never renewed: the scenario proves nothing", c.id)
			}
		}
	})
}

func TestStableLeader(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 10 * time.Second, 2 * time.Minute} {
		t.Run(ttl.String(), func(t *testing.T) {
			scenario(t, 20, ttl, func(s *sim, cs []*simClient) {
				for _, c := range cs[:8] {
					c.kill()
					wait(s.ctx, 137*time.Millisecond)
				}
				wait(s.ctx, ttl+2*time.Second)
				for _, c := range cs[:8] {
					if late := c.late(); late > 300*time.Millisecond {
						s.t.Errorf("expired %v after its TTL, want at most 300ms", late)
					}
				}
				for _, c := range cs[8:] {
					if !c.lives() {
						s.t.Errorf("lease %s ended though its owner beats", c.id)
					}
				}
			})
		})
	}
}

// TestFailover kills, cuts off or pauses the leader while some owners have just
// died and the others live on.
func TestFailover(t *testing.T) {
	faults := map[string]func(s *sim, n *simNode){
		"cut":     (*sim).isolate,
		"paused":  (*sim).pause,
		"restart": (*sim).restart,
	}
	for name, fault := range faults {
		for _, ttl := range []time.Duration{time.Second, 4 * time.Second, 15 * time.Second} {
			t.Run(name+"/"+ttl.String(), func(t *testing.T) {
				scenario(t, 20, ttl, func(s *sim, cs []*simClient) {
					for _, c := range cs[:8] {
						c.kill()
						wait(s.ctx, ttl/10)
					}
					began, before := time.Now(), s.elections()
					fault(s, s.nodes[0])
					for s.elections() == before {
						wait(s.ctx, 5*time.Millisecond)
					}
					outage := time.Since(began) + s.commit
					wait(s.ctx, ttl+outage+3*time.Second)
					for _, c := range cs[:8] {
						if late := c.late(); late > outage+500*time.Millisecond+ttl/100 { // clocks drift
							s.t.Errorf("expired %v after its TTL, want at most the outage of %v, 500ms and 1 %% of the TTL", late, outage)
						}
					}
					for _, c := range cs[8:] {
						if !c.lives() {
							s.t.Errorf("lease %s ended though its owner beats", c.id)
						}
					}
				})
			})
		}
	}
}

// TestFailoverWithoutMajority restarts all nodes at once: no table counts, so
// everybody gets a full TTL.
func TestFailoverWithoutMajority(t *testing.T) {
	const ttl = 6 * time.Second
	scenario(t, 20, ttl, func(s *sim, cs []*simClient) {
		for _, c := range cs[:8] {
			c.kill()
		}
		began, before := time.Now(), s.elections()
		for _, n := range s.nodes {
			s.restart(n)
		}
		for s.elections() == before {
			wait(s.ctx, 5*time.Millisecond)
		}
		failover := time.Since(began) + s.commit
		wait(s.ctx, 2*ttl+failover)
		for _, c := range cs[:8] {
			if late := c.late(); late > ttl+failover+500*time.Millisecond {
				s.t.Errorf("expired %v after its TTL, want at most another TTL and %v", late, failover)
			}
		}
		for _, c := range cs[8:] {
			if !c.lives() {
				s.t.Errorf("lease %s ended though its owner beats", c.id)
			}
		}
	})
}

// TestAllPaused stops all nodes for longer than the TTL, which then counts for
// nobody: nothing may expire in the first TTL after.
func TestAllPaused(t *testing.T) {
	const ttl = 2 * time.Second
	for _, failover := range []bool{false, true} {
		scenario(t, 20, ttl, func(s *sim, cs []*simClient) {
			for _, n := range s.nodes {
				s.pause(n)
			}
			for _, c := range cs[:8] {
				c.kill()
			}
			wait(s.ctx, 10*time.Second)
			resumed := time.Now()
			for _, n := range s.nodes {
				s.resume(n)
			}
			if failover {
				s.elect(s.nodes[1])
			}
			wait(s.ctx, 2*ttl+3*time.Second)
			for _, c := range cs {
				at, ended := s.ended(c.lease())
				if ended && at.Sub(resumed) < ttl*2/3-100*time.Millisecond {
					s.t.Errorf("lease %s ended %v after the pause", c.id, at.Sub(resumed))
				}
			}
			for _, c := range cs[:8] {
				if at, ok := s.ended(c.lease()); !ok || at.Sub(resumed) > ttl+1500*time.Millisecond {
					s.t.Errorf("lease %s, whose owner died: ended %v, %v after the pause", c.id, ok, at.Sub(resumed))
				}
			}
			for _, c := range cs[8:] {
				if !c.lives() {
					s.t.Errorf("lease %s ended though its owner beats", c.id)
				}
			}
		})
	}
}

// TestTwoFailovers changes leaders twice so fast that nobody can beat between:
// both outages are taken out.
func TestTwoFailovers(t *testing.T) {
	const ttl = time.Second
	scenario(t, 20, ttl, func(s *sim, cs []*simClient) {
		s.pause(s.nodes[0])
		wait(s.ctx, 1500*time.Millisecond)
		s.mu.Lock()
		second := s.leader
		s.mu.Unlock()
		wait(s.ctx, 50*time.Millisecond)
		s.resume(s.nodes[0])
		s.pause(second)
		wait(s.ctx, 5*time.Second)
		s.resume(second)
		for _, c := range cs {
			if !c.lives() {
				s.t.Errorf("lease %s ended though its owner beats", c.id)
			}
		}
	})
}

// TestOutageIsToldOn changes leaders twice while nobody beats: the second leader
// has told the others of the outage before it, so the third takes out both.
func TestOutageIsToldOn(t *testing.T) {
	const ttl = 2 * time.Second
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3, func(s *sim) { s.election = 3 * time.Second })
		wait(s.ctx, 10*time.Second)
		c := s.owner("web", 0, ttl)
		c.register()
		for pace := ttl; c.acks < 5; {
			c.beat(&pace)
			wait(s.ctx, ttl/3)
		}
		leaderGoes := func() {
			s.mu.Lock()
			old := s.leader
			s.mu.Unlock()
			before := s.elections()
			s.heal()
			s.isolate(old)
			for s.elections() == before {
				wait(s.ctx, 5*time.Millisecond)
			}
		}
		for range 3 { // 9 s without anybody to beat at, but for 100 ms in between
			leaderGoes()
			wait(s.ctx, 100*time.Millisecond)
		}
		if pace := ttl; !c.lives() || !c.beat(&pace) {
			t.Error("a lease ended that its owner had not had a TTL to renew in")
		}
		c.check()
	})
}

// TestOutageIsRemembered has a leader find an outage and die before it has told the
// one node that heard the last heartbeat: who leads next counts both outages for
// what that node knows.
func TestOutageIsRemembered(t *testing.T) {
	const ttl = 2 * time.Second
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3, func(s *sim) { s.election = time.Hour }) // the test elects
		a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
		wait(s.ctx, 10*time.Second)
		o := s.owner("web", 0, ttl)
		o.register()
		s.isolate(a)
		s.elect(b)
		for pace := ttl; o.acks < 5; {
			o.beat(&pace)
			wait(s.ctx, ttl/3)
		}
		s.isolate(b) // nobody leads; b and c know of the last heartbeat
		wait(s.ctx, 5*time.Second)
		s.heal()
		s.isolate(b)
		s.elect(c) // tells a of the outage, and not b
		wait(s.ctx, 250*time.Millisecond)
		s.restart(c) // forgets the heartbeat
		s.heal()
		s.isolate(c)
		wait(s.ctx, time.Second)
		s.elect(a)
		wait(s.ctx, ttl/2)
		if pace := ttl; !o.lives() || !o.beat(&pace) {
			t.Error("a lease ended that its owner had not had a TTL to renew in")
		}
		o.check()
	})
}

// TestOutageWithinSession stops a leader for longer than a TTL while nobody else can
// lead. It goes on for a moment, and tells the others how long it was away before it
// dies: its successor counts that too.
func TestOutageWithinSession(t *testing.T) {
	const ttl = 2 * time.Second
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3, func(s *sim) { s.election = time.Hour }) // the test elects
		a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
		wait(s.ctx, 10*time.Second)
		o := s.owner("web", 0, ttl)
		o.register()
		wait(s.ctx, 100*time.Millisecond) // c has it too
		s.isolate(c)
		for pace := ttl; o.acks < 5; {
			o.beat(&pace)
			wait(s.ctx, ttl/3)
		}
		s.pause(a)
		wait(s.ctx, 4*time.Second)
		s.resume(a)
		wait(s.ctx, 250*time.Millisecond)
		s.heal()
		s.isolate(a)
		s.elect(b)
		wait(s.ctx, ttl/3)
		if pace := ttl; !o.lives() || !o.beat(&pace) {
			t.Error("a lease ended that its owner had not had a TTL to renew in")
		}
		o.check()
	})
}

// TestOldRenewProvesNothing stops a voter in front of messages of a leader that is
// lost meanwhile. It reads them when it goes on, and acknowledges them: that is no
// sign that renewals got through until then, and its successor must not take it for
// one. A lease whose owner had nobody to beat at all that time lives.
func TestOldRenewProvesNothing(t *testing.T) {
	const ttl = 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3, func(s *sim) { s.election = time.Hour }) // the test elects
		a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
		wait(s.ctx, 2*ttl)
		o := s.owner("web", 0, ttl)
		o.register()
		pace := ttl
		wait(s.ctx, time.Second) // b knows of it too
		s.isolate(b)             // and hears of no heartbeat from now on
		for end := time.Now().Add(ttl - time.Second); time.Now().Before(end); {
			o.beat(&pace)
			wait(s.ctx, ttl/5)
		}
		s.pause(b)
		s.heal()
		wait(s.ctx, 2500*time.Millisecond) // what waits for b now has been sent since
		s.isolate(a)                       // nobody leads
		wait(s.ctx, ttl)
		s.resume(b)
		wait(s.ctx, 200*time.Millisecond)
		s.elect(c)
		wait(s.ctx, ttl/3)
		if !o.lives() || !o.beat(&pace) {
			t.Error("a lease ended that its owner had not had a TTL to renew in")
		}
		o.check()
	})
}

// TestMassLoss kills most owners at once: the governor holds them, lets those go
// that return and, after a minute, the rest in slices.
func TestMassLoss(t *testing.T) {
	const ttl = 6 * time.Second
	scenario(t, 100, ttl, func(s *sim, cs []*simClient) {
		dead := cs[:40]
		for _, c := range dead {
			c.kill()
		}
		wait(s.ctx, ttl+time.Second)
		k := s.nodes[0].keeper
		if got := k.Suspects(); got < 20 || got > 40 {
			s.t.Fatalf("%d leases held, want most of 40", got)
		}
		for _, c := range cs[40:] {
			if !c.lives() {
				s.t.Errorf("lease %s ended though its owner beats", c.id)
			}
		}
		var back *simClient
		for _, c := range dead {
			if c.lives() {
				back = c
				break
			}
		}
		held := k.Suspects()
		back.die = make(chan struct{})
		if pace := ttl; !back.beat(&pace) {
			s.t.Fatal("a held lease was not renewed")
		}
		wait(s.ctx, time.Second)
		if got := k.Suspects(); got != held-1 {
			s.t.Errorf("%d held after one returned, want %d", got, held-1)
		}
		wait(s.ctx, 50*time.Second)
		if got := k.Suspects(); got < held-1 {
			s.t.Errorf("%d held within the minute, want %d", got, held-1)
		}
		wait(s.ctx, 50*time.Second)
		if got := k.Suspects(); got != 0 {
			s.t.Errorf("%d held long after the minute", got)
		}
		let := 0
		for _, c := range dead {
			if s.how[c.lease()] == lease.LetGo {
				let++
			}
		}
		if let < held-1 {
			s.t.Errorf("%d let go, want at least %d", let, held-1)
		}
	})
}
