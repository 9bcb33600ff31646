package balancer_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// world is a service whose instances answer as the test says, and the traffic to it.
type world struct {
	t    *testing.T
	b    *balancer.Balancer
	v    *muster.View
	s    balancer.Strategy
	now  time.Time
	keys int
	// answer says what becomes of a request.
	answer func(id string) balancer.Outcome
}

// send makes n requests, a hundred a second, and counts them by instance.
func (w *world) send(n int) map[string]int {
	w.t.Helper()
	got := map[string]int{}
	for range n {
		w.now = w.now.Add(10 * time.Millisecond)
		w.keys++
		c, err := w.b.Start(w.now, &balancer.Request{View: w.v, Strategy: w.s, Key: fmt.Sprint("key-", w.keys)})
		if err != nil {
			w.t.Fatal(err)
		}
		got[c.Instance.ID]++
		w.b.Done(w.now, c, w.answer(c.Instance.ID))
	}
	return got
}

func well(string) balancer.Outcome { return balancer.Outcome{Latency: 5 * time.Millisecond} }

// halfFailing makes one instance fail every other request.
func halfFailing(sick string) func(string) balancer.Outcome {
	n := 0
	return func(id string) balancer.Outcome {
		o := well(id)
		if id == sick {
			n++
			o.Failed = n%2 == 1
		}
		return o
	}
}

// TestHalfFailingLosesItsShare: an instance that fails half of its requests is out
// within 50 picks, whatever the strategy, fresh or after a long time of being well;
// and it comes back after it healed.
func TestHalfFailingLosesItsShare(t *testing.T) {
	t.Parallel()
	for _, history := range []int{0, 1000} {
		every(t, func(t *testing.T, s balancer.Strategy) {
			w := &world{t: t, b: newBalancer(t, balancer.Config{Random: seeded(7)}), v: service(3), s: s, now: epoch, answer: well}
			const sick = "i000001"
			if history > 0 {
				if n := w.send(history)[sick]; n < history/6 {
					t.Fatalf("while well it got %d of %d", n, history)
				}
			}
			w.answer = halfFailing(sick)
			before := w.send(50)[sick]
			if before < 3 {
				t.Fatalf("it got only %d of the first 50: nothing was tried", before)
			}
			if n := w.send(300)[sick]; n > 6 {
				t.Errorf("after 50 picks (%d to it) it still got %d of 300", before, n)
			}
			w.answer = well
			w.now = w.now.Add(time.Minute)
			w.send(300)
			if n := w.send(300)[sick]; n < 50 {
				t.Errorf("after it healed it got %d of 300, want about a third", n)
			}
		})
	}
}

// TestRandomlyHalfFailing is the same by chance: in nearly all runs 50 picks are
// enough.
func TestRandomlyHalfFailing(t *testing.T) {
	t.Parallel()
	out := 0
	const runs = 400
	for seed := range uint64(runs) {
		chance := rand.New(rand.NewPCG(seed, 2))
		w := &world{t: t, b: newBalancer(t, balancer.Config{Random: seeded(seed)}), v: service(3), s: strategy(t, "round_robin"), now: epoch}
		w.answer = func(id string) balancer.Outcome {
			return balancer.Outcome{Failed: id == "i000001" && chance.IntN(2) == 0}
		}
		w.send(50)
		if w.b.Stats(w.now, w.v).Instances[1].Ejected {
			out++
		}
	}
	if out < runs*94/100 {
		t.Errorf("after 50 picks %d of %d were ejected", out, runs)
	}
}

// TestAFewFailuresEjectNobody: one failure in twenty is life.
func TestAFewFailuresEjectNobody(t *testing.T) {
	t.Parallel()
	w := &world{t: t, b: newBalancer(t, balancer.Config{Random: seeded(7)}), v: service(5), s: strategy(t, "round_robin"), now: epoch}
	n := 0
	w.answer = func(string) balancer.Outcome {
		n++
		return balancer.Outcome{Failed: n%20 == 0}
	}
	w.send(5000)
	for _, i := range w.b.Stats(w.now, w.v).Instances {
		if i.State != balancer.Closed || i.Strikes > 0 {
			t.Errorf("%s: %+v", i.ID, i)
		}
	}
}

// TestBadLuckEjectsNobody: an instance that fails 1 in 20 by chance is not taken for
// sick, however long that goes on.
func TestBadLuckEjectsNobody(t *testing.T) {
	t.Parallel()
	ejected := 0
	for seed := range uint64(30) {
		chance := rand.New(rand.NewPCG(seed, 3))
		b := newBalancer(t, balancer.Config{})
		v := service(3)
		now := epoch
		for range 4000 {
			now = now.Add(10 * time.Millisecond)
			o := balancer.Outcomes{Successes: 1}
			if chance.IntN(20) == 0 {
				o = balancer.Outcomes{Failures: 1}
			}
			report(t, b, now, v, "i000000", o)
			if st := b.Stats(now, v).Instances[0]; st.State == balancer.Open {
				ejected++
				now = st.Until
			}
		}
	}
	// In its first ten requests an instance is known too little: three of those fail
	// by chance one time in a hundred.
	if ejected > 3 {
		t.Errorf("in 120,000 requests it was ejected %d times", ejected)
	}
}

// TestBreaker walks one breaker through its states.
func TestBreaker(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	v := service(4)
	const id = "i000002"
	now := epoch
	check := func(what string, state balancer.State, strikes int, lasts time.Duration) {
		t.Helper()
		got := b.Stats(now, v).Instances[2]
		var left time.Duration
		if !got.Until.IsZero() {
			left = got.Until.Sub(now)
		}
		if got.State != state || got.Strikes != strikes || left != lasts || got.Ejected != (state == balancer.Open) {
			t.Errorf("%s: got %+v (%s left), want %s, %d strikes, %s left", what, got, left, state, strikes, lasts)
		}
	}
	fails := func(n uint64) { t.Helper(); fail(t, b, now, v, id, n) }
	succeeds := func(n uint64) { t.Helper(); report(t, b, now, v, id, balancer.Outcomes{Successes: n}) }

	succeeds(20)
	fails(4)
	check("four failures in a row", balancer.Closed, 0, 0)
	fails(1)
	check("five", balancer.Open, 1, 10*time.Second)
	now = now.Add(4 * time.Second)
	fails(3)
	succeeds(10)
	check("late reports change nothing", balancer.Open, 1, 6*time.Second)
	now = now.Add(6 * time.Second)
	check("its time is over", balancer.HalfOpen, 1, 30*time.Second)
	succeeds(2)
	fails(1)
	check("a failed trial", balancer.Open, 2, 20*time.Second)
	now = now.Add(20 * time.Second)
	check("its time is over", balancer.HalfOpen, 2, 30*time.Second)
	now = now.Add(time.Second)
	succeeds(3)
	check("three successes", balancer.Closed, 2, 0)
	now = now.Add(time.Minute)
	fails(5)
	check("again, soon after", balancer.Open, 3, 40*time.Second)
	now = now.Add(40 * time.Second)
	check("its time is over again", balancer.HalfOpen, 3, 40*time.Second)
	now = now.Add(40 * time.Second)
	check("nothing was heard", balancer.Closed, 3, 0)
	now = now.Add(6 * time.Minute)
	report(t, b, now, v, id, balancer.Outcomes{Successes: 6, Failures: 4})
	check("a long time after: a rate of 40 %", balancer.Open, 1, 10*time.Second)
}

func TestEjectionTimeIsBounded(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	v := service(4)
	now := epoch
	for range 30 {
		fail(t, b, now, v, "i000000", 5)
		i := b.Stats(now, v).Instances[0]
		if i.State != balancer.Open {
			t.Fatalf("got %+v", i)
		}
		if left := i.Until.Sub(now); left > muster.MaxEjectionTime {
			t.Fatalf("an ejection of %s", left)
		}
		now = i.Until
	}
}

// TestHalfOpenLetsAFewThrough counts the picks of a half-open instance of which
// nothing is heard.
func TestHalfOpenLetsAFewThrough(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, s balancer.Strategy) {
		b := newBalancer(t, balancer.Config{Random: seeded(5)})
		v := service(4)
		fail(t, b, epoch, v, "i000002", 5)
		r := balancer.Request{View: v, Strategy: s}
		if n := picks(t, b, epoch.Add(9*time.Second), r, 1000)["i000002"]; n != 0 {
			t.Errorf("while open it was picked %d times", n)
		}
		if n := picks(t, b, epoch.Add(11*time.Second), r, 1000)["i000002"]; n != 5 {
			t.Errorf("half-open it was picked %d times, want 5", n)
		}
		if n := picks(t, b, epoch.Add(17*time.Second), r, 1000)["i000002"]; n != 5 {
			t.Errorf("six seconds later it was picked %d times, want 5 more", n)
		}
	})
}

// TestEjectionCap: of those that fail, the first are ejected, as many as allowed,
// and the next when one of them is back.
func TestEjectionCap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, percent, want int }{
		{10, 50, 5}, {10, 30, 3}, {10, 0, 0}, {3, 50, 1}, {2, 50, 1}, {1, 50, 0}, {7, 50, 3}, {4, 100, 4},
	} {
		t.Run(fmt.Sprintf("%d of %d%%", c.n, c.percent), func(t *testing.T) {
			t.Parallel()
			b := newBalancer(t, balancer.Config{Random: seeded(1)})
			v := with(service(c.n), func(s *muster.Settings) { s.MaxEjected, s.PanicThreshold = c.percent, 0 })
			now := epoch
			for _, i := range v.Instances {
				now = now.Add(time.Millisecond)
				fail(t, b, now, v, i.ID, 10)
			}
			st := b.Stats(now, v)
			got := picks(t, b, now, balancer.Request{View: v}, 100*c.n)
			for k, i := range st.Instances {
				if c.percent == 100 { // nobody is left: those who failed are better than none
					if i.Ejected || got[i.ID] == 0 {
						t.Errorf("%s was picked %d times, ejected %v", i.ID, got[i.ID], i.Ejected)
					}
					continue
				}
				if want := k < c.want; i.Ejected != want || want != (got[i.ID] == 0) {
					t.Errorf("%s: ejected %v, picked %d times; want the first %d to be out", i.ID, i.Ejected, got[i.ID], c.want)
				}
			}
		})
	}
	t.Run("the next one moves up", func(t *testing.T) {
		t.Parallel()
		b := newBalancer(t, balancer.Config{})
		v := service(4)
		for k, i := range v.Instances[:3] {
			fail(t, b, epoch.Add(time.Duration(k)*time.Second), v, i.ID, 5)
		}
		now := epoch.Add(11 * time.Second) // the first is half-open, and heals
		report(t, b, now, v, "i000000", balancer.Outcomes{Successes: 3})
		st := b.Stats(now, v)
		for k, want := range []bool{false, false, true, false} {
			// The second is half-open by now, the third still open.
			if st.Instances[k].Ejected != want {
				t.Errorf("%d: got %+v", k, st.Instances[k])
			}
		}
	})
}

// TestANewLifeIsNotBlamed: what was learnt of an instance is not held against a new
// one of the same id.
func TestANewLifeIsNotBlamed(t *testing.T) {
	t.Parallel()
	for name, reborn := range map[string]change{
		"restarted": func(_ int, i *muster.Instance) { i.Incarnation = 9 },
		"moved":     func(_ int, i *muster.Instance) { i.Address = "10.9.9.9" },
		"created":   func(_ int, i *muster.Instance) { i.CreateIndex = 8 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBalancer(t, balancer.Config{})
			v := service(4)
			fail(t, b, epoch, v, "i000002", 5)
			if !b.Stats(epoch, v).Instances[2].Ejected {
				t.Fatal("it was not ejected")
			}
			if next := again(v); !b.Stats(epoch, next).Instances[2].Ejected {
				t.Error("another view of the same let it in")
			}
			next := service(4, only(reborn, 2))
			next.Index = 9
			if i := b.Stats(epoch, next).Instances[2]; i.Ejected || i.State != balancer.Closed {
				t.Errorf("the new one: got %+v", i)
			}
		})
	}
}
