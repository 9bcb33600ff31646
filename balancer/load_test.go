package balancer_test

import (
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

func TestLeastRequestPassesOverTheBusy(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{Random: seeded(1)})
	v := service(5, weights(100, 100, 100, 100, 200))
	r := &balancer.Request{View: v, Strategy: strategy(t, "least_request")}
	held := map[string]int{}
	for range 600 { // nobody answers
		c, err := b.Start(epoch, r)
		if err != nil {
			t.Fatal(err)
		}
		held[c.Instance.ID]++
	}
	for k, i := range v.Instances {
		if want := i.Weight; held[i.ID] < want-8 || held[i.ID] > want+8 {
			t.Errorf("%d holds %d requests, want about %d, by its weight", k, held[i.ID], want)
		}
	}
	if st := b.Stats(epoch, v); st.InFlight != 600 || st.Instances[4].InFlight != int64(held["i000004"]) {
		t.Errorf("the stats show %d in flight, and %d where %d are", st.InFlight, st.Instances[4].InFlight, held["i000004"])
	}
}

func TestEWMAAvoidsTheSlowUntilItIsWell(t *testing.T) {
	t.Parallel()
	slow := map[string]bool{"i000003": true}
	w := &world{t: t, b: newBalancer(t, balancer.Config{Random: seeded(1)}), v: service(5), s: strategy(t, "ewma"), now: epoch}
	w.answer = func(id string) balancer.Outcome {
		if slow[id] {
			return balancer.Outcome{Latency: 200 * time.Millisecond}
		}
		return balancer.Outcome{Latency: 10 * time.Millisecond}
	}
	w.send(100)
	if n := w.send(1000)["i000003"]; n > 20 {
		t.Errorf("the slow one got %d of 1000", n)
	}
	delete(slow, "i000003")
	w.send(6000) // a minute
	if n := w.send(1000)["i000003"]; n < 100 {
		t.Errorf("after it got well it got %d of 1000", n)
	}
}

// TestQuickFailuresLookNotFast: failing fast does not attract traffic.
func TestQuickFailuresLookNotFast(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	v := service(2)
	report(t, b, epoch, v, "i000000", balancer.Outcomes{Successes: 1, Latency: 50 * time.Millisecond})
	report(t, b, epoch.Add(time.Second), v, "i000000", balancer.Outcomes{Failures: 1, Latency: time.Millisecond})
	if got := time.Duration(b.Stats(epoch, v).Instances[0].Latency); got < 49*time.Millisecond || got > 51*time.Millisecond {
		t.Errorf("got %s, want 50ms", got)
	}
	report(t, b, epoch.Add(time.Second), v, "i000000", balancer.Outcomes{Failures: 1, Latency: time.Second})
	if got := time.Duration(b.Stats(epoch, v).Instances[0].Latency); got < 999*time.Millisecond || got > 1001*time.Millisecond {
		t.Errorf("got %s, want the peak of 1s", got)
	}
}

func TestReportsAreChecked(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	v := service(2)
	for _, c := range []struct {
		id   string
		o    balancer.Outcomes
		code muster.Code
	}{
		{"i000000", balancer.Outcomes{Successes: 1}, ""},
		{"i000000", balancer.Outcomes{Successes: balancer.MaxOutcomes, Failures: balancer.MaxOutcomes}, ""},
		{"i000000", balancer.Outcomes{}, muster.CodeConflictingField},
		{"i000000", balancer.Outcomes{Latency: time.Second}, muster.CodeConflictingField},
		{"i000000", balancer.Outcomes{Failures: balancer.MaxOutcomes + 1}, muster.CodeConflictingField},
		{"i000000", balancer.Outcomes{Successes: ^uint64(0), Failures: 1}, muster.CodeConflictingField},
		{"i000009", balancer.Outcomes{Successes: 1}, muster.CodeUnknownInstance},
	} {
		if err := b.Report(epoch, v, c.id, c.o); muster.CodeOf(err) != c.code {
			t.Errorf("%s %+v: got %v, want %q", c.id, c.o, err, c.code)
		}
	}
}
