package client_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
)

func web(id string, ttl time.Duration) muster.Instance {
	return muster.Instance{Service: "web", ID: id, Address: "10.0.0.1", Port: 80, TTL: muster.TTL(ttl)}
}

// states reads the changes of a session up to now, in short.
func states(s *client.Session) string {
	synctest.Wait()
	var got []string
	for {
		select {
		case ch, ok := <-s.Changes():
			if !ok {
				return strings.Join(got, " ")
			}
			got = append(got, string(ch.State))
		default:
			return strings.Join(got, " ")
		}
	}
}

func wantStates(t *testing.T, s *client.Session, want string) {
	t.Helper()
	if got := states(s); got != want {
		t.Errorf("states: got %q, want %q", got, want)
	}
}

func mustRegister(t *testing.T, c *client.Client, ctx context.Context, i muster.Instance, opts ...client.SessionOption) *client.Session {
	t.Helper()
	s, err := c.Register(ctx, i, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSession registers, stays through many TTLs and ends cleanly.
func TestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 3))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := mustRegister(t, c, ctx, web("a", 3*time.Second))
		if err := s.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i := r.find("web", "a"); i == nil || i.Weight != muster.DefaultWeight || i.Incarnation == 0 {
			t.Errorf("registered as %+v", i)
		}
		if _, err := c.Register(ctx, web("a", time.Second)); !errors.Is(err, muster.CodeConflict) {
			t.Errorf("the same once more: %v, want conflict", err)
		}
		for range 60 {
			time.Sleep(time.Second)
			if r.find("web", "a") == nil {
				t.Fatal("it expired")
			}
		}
		if err := s.Update(func(i *muster.Instance) { i.Meta["team"] = "pay"; i.Weight = client.NoTraffic }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if i := r.find("web", "a"); i.Meta["team"] != "pay" || i.Weight != 0 {
			t.Errorf("after an update: %+v", i)
		}
		if err := s.Update(func(i *muster.Instance) { i.ID = "b" }); !errors.Is(err, muster.CodeConflictingField) {
			t.Errorf("an update to another id: %v", err)
		}
		if err := s.Update(func(i *muster.Instance) { i.Port = 0 }); !errors.Is(err, muster.CodeInvalidPort) {
			t.Errorf("an invalid update: %v", err)
		}
		cancel()
		<-s.Done()
		if r.find("web", "a") != nil {
			t.Error("it is still registered")
		}
		wantStates(t, s, "registering registered draining ended")
		if err := s.Update(func(*muster.Instance) {}); err == nil {
			t.Error("an update of a session that is over was taken")
		}
	})
}

// TestSessionRegistryDown starts with all nodes down, is registered soon after they
// come up, survives a minute without them, a cluster that forgot everything and an
// expiry.
func TestSessionRegistryDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 3)
		all := func(m mode) {
			for _, h := range hosts {
				h.become(m)
			}
		}
		all(down)
		c := newClient(t, w, hosts)
		s := mustRegister(t, c, t.Context(), web("a", 10*time.Second))
		time.Sleep(time.Minute)
		if st, err := s.State(); st != client.StateRegistering || !errors.Is(err, client.CodeUnreachable) {
			t.Errorf("with nobody there: %s %v", st, err)
		}
		all(works)
		time.Sleep(6 * time.Second)
		wantStates(t, s, "registering registered")

		all(silent)
		time.Sleep(time.Minute)
		wantStates(t, s, "lost")
		if r.find("web", "a") != nil {
			t.Fatal("the registry of this test does not expire")
		}
		all(works)
		time.Sleep(6 * time.Second)
		wantStates(t, s, "registered")

		r.forget("c-2")
		time.Sleep(10 * time.Second)
		wantStates(t, s, "registering registered")
		r.drop("web", "a", muster.EventExpired, muster.EmptyExpired)
		time.Sleep(10 * time.Second)
		wantStates(t, s, "registering registered")
		if r.find("web", "a") == nil {
			t.Error("it is not registered")
		}
	})
}

// TestSessionBlackHole: a node that takes requests and never answers costs no
// instance with the shortest TTL its lease.
func TestSessionBlackHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 3)
		c := newClient(t, w, hosts)
		s := mustRegister(t, c, t.Context(), web("a", time.Second))
		if err := s.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		other := mustRegister(t, c, t.Context(), web("b", 20*time.Second))
		for n := range 120 {
			for m, h := range hosts {
				h.become(works)
				if m == n/10%3 {
					h.become(silent)
				}
			}
			time.Sleep(500 * time.Millisecond)
			if r.find("web", "a") == nil {
				t.Fatalf("it expired after %d half seconds", n)
			}
		}
		wantStates(t, other, "registering registered")
		wantStates(t, s, "registering registered")
	})
}

// TestSessionFenced: of two processes with the same id the later one has it, and the
// older one is told, does not come back and does not take it along when it goes.
func TestSessionFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 3)
		older, newer := newClient(t, w, hosts), newClient(t, w, hosts)
		s1 := mustRegister(t, older, t.Context(), web("a", 3*time.Second))
		if err := s1.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s2 := mustRegister(t, newer, t.Context(), web("a", 3*time.Second))
		if err := s2.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-s1.Done()
		if st, err := s1.State(); st != client.StateFenced || !errors.Is(err, muster.CodeFenced) {
			t.Errorf("the older one: %s %v", st, err)
		}
		wantStates(t, s1, "registering registered fenced")
		if err := s1.Await(t.Context()); !errors.Is(err, muster.CodeFenced) {
			t.Errorf("waiting for it: %v", err)
		}
		older.Close()
		time.Sleep(10 * time.Second)
		if i := r.find("web", "a"); i == nil || i.Incarnation != s2.Incarnation() {
			t.Errorf("registered is %+v", i)
		}

		// One that is older from the start is refused.
		i := web("a", 3*time.Second)
		i.Incarnation = 1
		third := newClient(t, w, hosts)
		if err := mustRegister(t, third, t.Context(), i).Await(t.Context()); !errors.Is(err, muster.CodeFenced) {
			t.Errorf("an old incarnation: %v", err)
		}
	})
}

// TestSessionsTogether: many instances travel in one batch, and end together.
func TestSessionsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 1500
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		var all []*client.Session
		for n := range count {
			all = append(all, mustRegister(t, c, t.Context(), web(fmt.Sprintf("i%d", n), 9*time.Second)))
		}
		for _, s := range all {
			if err := s.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		// One with another TTL does not change the pace of the others.
		mustRegister(t, c, t.Context(), web("quick", time.Second))
		time.Sleep(30 * time.Second)
		r.mu.Lock()
		total := 0
		for _, n := range r.batches {
			total += n
		}
		batches := len(r.batches)
		most := slices.Max(r.batches)
		r.mu.Unlock()
		// 30 s are 10 beats of each, and 90 of the quick one.
		if most != muster.MaxHeartbeatItems || total > 12*count || batches > 150 {
			t.Errorf("%d batches of at most %d, %d beats in all", batches, most, total)
		}
		for n := range count {
			if r.find("web", fmt.Sprintf("i%d", n)) == nil {
				t.Fatalf("i%d expired", n)
			}
		}
		c.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.stored) > 0 {
			t.Errorf("%d are still registered", len(r.stored))
		}
	})
}

// TestSessionDrain: at its end the instance takes no new traffic first, is kept
// alive meanwhile, and then goes.
func TestSessionDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := mustRegister(t, c, ctx, web("a", time.Second), client.Drain(20*time.Second))
		if err := s.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		cancel()
		for range 19 {
			time.Sleep(time.Second)
			if i := r.find("web", "a"); i == nil || i.Weight != 0 || i.Routable {
				t.Fatalf("while it drains: %+v", i)
			}
		}
		began := time.Now()
		<-s.Done()
		if took := time.Since(began); took > 2*time.Second || r.find("web", "a") != nil {
			t.Errorf("it ended %s later, registered: %v", took, r.find("web", "a"))
		}
	})
}

// TestSessionEnd: End is the end of a session whose context goes on, drain and all.
func TestSessionEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		s := mustRegister(t, c, t.Context(), web("a", time.Second), client.Drain(20*time.Second))
		if err := s.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		s.End()
		s.End()
		time.Sleep(10 * time.Second)
		if i := r.find("web", "a"); i == nil || i.Weight != 0 {
			t.Errorf("while it drains: %+v", i)
		}
		<-s.Done()
		if took := time.Since(began); took < 20*time.Second || took > 22*time.Second || r.find("web", "a") != nil {
			t.Errorf("it ended %s later, registered: %v", took, r.find("web", "a"))
		}
		if st, err := s.State(); st != client.StateEnded || err != nil {
			t.Errorf("ended as %s %v", st, err)
		}
		s.End() // too late, and no harm
	})
}

// TestSessionStopIsBounded: with no node to deregister at, the end comes in time and
// says so.
func TestSessionStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 2)
		c := newClient(t, w, hosts)
		s := mustRegister(t, c, t.Context(), web("a", time.Minute))
		if err := s.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			h.become(silent)
		}
		began := time.Now()
		c.Close()
		if took := time.Since(began); took > client.DefaultStopTimeout+time.Second {
			t.Errorf("Close took %s", took)
		}
		if st, err := s.State(); st != client.StateEnded || err == nil {
			t.Errorf("ended as %s %v", st, err)
		}
	})
}

// TestSessionRefused: what no registry takes is told, and not tried for ever.
func TestSessionRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 1)
		c := newClient(t, w, hosts)
		if _, err := c.Register(t.Context(), muster.Instance{Service: "web", ID: "a", Port: 80}); !errors.Is(err, muster.CodeInvalidAddress) {
			t.Errorf("without an address: %v", err)
		}
		shared := web("a", 0)
		shared.TTL, shared.LeaseID = 0, muster.MakeLeaseID(7, 0)
		if _, err := c.Register(t.Context(), shared); !errors.Is(err, muster.CodeConflictingField) {
			t.Errorf("on a shared lease: %v", err)
		}
		c.Close()
		if _, err := c.Register(t.Context(), web("a", time.Second)); !errors.Is(err, muster.CodeShuttingDown) {
			t.Errorf("of a closed client: %v", err)
		}
	})
}

// TestSessionBadCompany: an instance that a registry cannot read does not keep the
// others from it, and is told.
func TestSessionBadCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		var good []*client.Session
		bad := web("bad", 10*time.Second)
		bad.Meta = map[string]string{"unknown": "x"}
		var refused *client.Session
		for n := range 20 {
			if n == 10 {
				refused = mustRegister(t, c, t.Context(), bad)
			}
			good = append(good, mustRegister(t, c, t.Context(), web(fmt.Sprintf("i%d", n), 10*time.Second)))
		}
		for _, s := range good {
			if err := s.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := refused.Await(t.Context()); !errors.Is(err, muster.CodeUnknownField) {
			t.Errorf("got %v", err)
		}
		wantStates(t, refused, "registering ended")
	})
}

// TestSessionPersistent has no lease, and is still put back when it is lost.
func TestSessionPersistent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		i := web("a", 0)
		i.TTL = muster.NoTTL
		s := mustRegister(t, c, t.Context(), i)
		time.Sleep(time.Hour)
		wantStates(t, s, "registering registered")
		r.forget("c-2")
		time.Sleep(time.Minute)
		if r.find("web", "a") == nil {
			t.Error("it was not put back")
		}
	})
}

// TestSessionBecause: the reason travels with what registers and deregisters, and
// sessions with different ones do not share a request.
func TestSessionBecause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		for n := range 4 {
			i, opts := web(fmt.Sprintf("i%d", n), 10*time.Second), []client.SessionOption(nil)
			if n > 0 {
				opts = append(opts, client.Because(fmt.Sprintf("deploy %d", n%2)))
			}
			if err := mustRegister(t, c, t.Context(), i, opts...).Await(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Register(t.Context(), web("x", 10*time.Second), client.Because(strings.Repeat("x", 300))); !errors.Is(err, muster.CodeInvalidName) {
			t.Errorf("a long reason: %v", err)
		}
		r.forget("c-2") // all of them at the same time
		time.Sleep(10 * time.Second)
		c.Close()
		count := map[string]int{}
		for _, asked := range r.seen {
			line, _, _ := strings.Cut(asked, "&timeout=")
			line, _, _ = strings.Cut(line, "?timeout=")
			method, rest, _ := strings.Cut(line, "?")
			if strings.Contains(line, "register") || strings.HasPrefix(line, "DELETE") {
				_, reason, _ := strings.Cut(rest, "reason=")
				count[strings.Fields(method)[0]+" "+reason]++
			}
		}
		want := map[string]int{"POST ": 2, "POST deploy+1": 3, "POST deploy+0": 2, "DELETE ": 1, "DELETE deploy+1": 2, "DELETE deploy+0": 1}
		if !maps.Equal(count, want) {
			t.Errorf("asked %v, want %v", count, want)
		}
	})
}

// TestUserAgent: every request says who asks, also one that follows and one that beats.
func TestUserAgent(t *testing.T) {
	for given, want := range map[string]string{"": "muster-client/devel", "shop/7": "shop/7"} {
		synctest.Test(t, func(t *testing.T) {
			w, r := newWorld(), newRegistry()
			c := newClient(t, w, w.nodes(r, 1), func(cfg *client.Config) { cfg.UserAgent = given })
			mustRegister(t, c, t.Context(), web("a", 3*time.Second))
			mustWatch(t, c, "web")
			time.Sleep(10 * time.Second)
			c.Close()
			if len(r.agents) != 1 || r.agents[want] < 5 {
				t.Errorf("it said %v, want %s", r.agents, want)
			}
		})
	}
}
