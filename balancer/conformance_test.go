package balancer_test

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// every runs a test for each strategy: what is asked here is asked of all.
func every(t *testing.T, test func(t *testing.T, s balancer.Strategy)) {
	t.Helper()
	for _, s := range balancer.Strategies() {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	var got []string
	for _, s := range balancer.Strategies() {
		got = append(got, s.Name())
	}
	if !slices.Equal(got, muster.StrategyNames()) {
		t.Errorf("got %v, want the names of the API %v", got, muster.StrategyNames())
	}
	if _, err := balancer.ParseStrategy("fastest"); muster.CodeOf(err) != muster.CodeInvalidStrategy {
		t.Errorf("an unknown name: got %v, want invalid_strategy", err)
	}
}

// TestPicksOnlyWhoMayBePicked mixes in one of every kind that is to be left out.
func TestPicksOnlyWhoMayBePicked(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, s balancer.Strategy) {
		v := service(16, mixedWeights,
			only(status(muster.StatusDraining, muster.CauseDrain), 1),
			only(status(muster.StatusMaintenance, muster.CauseMaintenance), 3),
			only(status(muster.StatusUnknown, muster.CauseRegistered), 5),
			only(status(muster.StatusDown, muster.CauseCheckFailed), 7),
			only(status(muster.StatusDown, muster.CauseLeaseExpired), 9),
			only(suspect, 11),
			only(func(_ int, i *muster.Instance) { i.Weight = 0 }, 13),
		)
		b := newBalancer(t, balancer.Config{Random: seeded(1)})
		got := picks(t, b, epoch, balancer.Request{View: v, Strategy: s}, 4000)
		for k, i := range v.Instances {
			left := k < 14 && k%2 == 1
			if n := got[i.ID]; left && n > 0 || !left && n == 0 {
				t.Errorf("%s (%s, weight %d, suspect %v) was picked %d times", i.ID, i.Status, i.Weight, i.Suspect, n)
			}
		}
	})
}

func TestOneInstance(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, s balancer.Strategy) {
		b := newBalancer(t, balancer.Config{Random: seeded(1)})
		v := service(1)
		if got := picks(t, b, epoch, balancer.Request{View: v, Strategy: s}, 100); got["i000000"] != 100 {
			t.Errorf("got %v", got)
		}
	})
}

func TestNobody(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, s balancer.Strategy) {
		b := newBalancer(t, balancer.Config{})
		for _, v := range []*muster.View{
			service(0), service(3, status(muster.StatusMaintenance, muster.CauseMaintenance)),
			service(1, status(muster.StatusDown, muster.CauseCheckFailed)),
		} {
			r := &balancer.Request{View: v, Strategy: s, Key: "k"}
			if _, err := b.Pick(epoch, r); muster.CodeOf(err) != muster.CodeNoInstance {
				t.Errorf("%d instances: got %v, want no_instance", len(v.Instances), err)
			}
			if _, err := b.Start(epoch, r); muster.CodeOf(err) != muster.CodeNoInstance {
				t.Errorf("%d instances: got %v, want no_instance", len(v.Instances), err)
			}
		}
	})
}

// TestShares holds what is picked against the theory, by a chi-square test whose
// source of chance is fixed. Who takes turns is better than chance and is held
// against exact numbers in other tests too.
func TestShares(t *testing.T) {
	t.Parallel()
	for _, weighted := range []bool{false, true} {
		every(t, func(t *testing.T, s balancer.Strategy) {
			const n, total = 30, 20_000
			change := func(int, *muster.Instance) {}
			if weighted {
				change = func(k int, i *muster.Instance) { i.Weight = 10 + 37*k%100 }
			}
			v := service(n, change)
			b := newBalancer(t, balancer.Config{Random: seeded(42)})
			got := picks(t, b, epoch, balancer.Request{View: v, Strategy: s}, total)
			var sum float64
			for _, i := range v.Instances {
				sum += weightFor(s, i)
			}
			var chi float64
			for _, i := range v.Instances {
				want := total * weightFor(s, i) / sum
				chi += (float64(got[i.ID]) - want) * (float64(got[i.ID]) - want) / want
			}
			if limit := chiSquare(n-1, 3.7); chi > limit {
				t.Errorf("weighted %v: chi-square %.1f with %d degrees of freedom, want at most %.1f (p = 0.0001)", weighted, chi, n-1, limit)
			}
		})
	}
}

// weightFor is what an instance's share is in proportion to.
func weightFor(s balancer.Strategy, i *muster.Instance) float64 {
	if s.Weighted() {
		return float64(i.Weight)
	}
	return 1
}

// chiSquare is the quantile of the chi-square distribution for the normal quantile
// z, by Wilson and Hilferty.
func chiSquare(df int, z float64) float64 {
	d := float64(df)
	return d * math.Pow(1-2/(9*d)+z*math.Sqrt(2/(9*d)), 3)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, s balancer.Strategy) {
		b, other := newBalancer(t, balancer.Config{Random: seeded(1)}), newBalancer(t, balancer.Config{Random: seeded(2)})
		v := service(50, mixedWeights, inZones(3))
		_, err := b.Pick(epoch, &balancer.Request{View: v, Strategy: s})
		if s.Keyed() != (muster.CodeOf(err) == muster.CodeInvalidStrategy) {
			t.Fatalf("without a key: got %v", err)
		}
		if !s.Keyed() {
			return
		}
		next := again(v)
		for _, zone := range []string{"", "z1", "nowhere"} {
			for _, key := range manyKeys(500) {
				r := &balancer.Request{View: v, Strategy: s, Key: key, Zone: zone}
				first := pick(t, b, epoch, r).Instance.ID
				if second := pick(t, b, epoch, r).Instance.ID; second != first {
					t.Fatalf("key %s: got %s, then %s", key, first, second)
				}
				if elsewhere := pick(t, other, epoch, &balancer.Request{View: next, Strategy: s, Key: key, Zone: zone}).Instance.ID; elsewhere != first {
					t.Fatalf("key %s: got %s here and %s elsewhere", key, first, elsewhere)
				}
			}
		}
	})
}

func TestMoreAreDistinct(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, s balancer.Strategy) {
		b := newBalancer(t, balancer.Config{Random: seeded(3)})
		for _, n := range []int{1, 2, 3, 10, 40} {
			v := service(10, weights(1, 1, 1, 1, 1, 1, 1, 1, 1, 60_000), inZones(2), only(status(muster.StatusDraining, muster.CauseDrain), 4))
			for round := range 50 {
				r := &balancer.Request{View: v, Strategy: s, Key: fmt.Sprint(round), Zone: "z1"}
				c := pick(t, b, epoch, r)
				got := b.More(epoch, r, c, n)
				if want := min(n, 9); len(got) != want || got[0] != c.Instance {
					t.Fatalf("n=%d: got %d instances, want %d beginning with the choice", n, len(got), want)
				}
				ids := map[string]bool{}
				for _, i := range got {
					ids[i.ID] = true
				}
				if len(ids) != len(got) || ids["i000004"] {
					t.Fatalf("n=%d: got %v", n, ids)
				}
			}
		}
	})
}

// TestMoreOfAKey asks that the further instances of a key are always the same.
func TestMoreOfAKey(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, s balancer.Strategy) {
		if !s.Keyed() {
			t.Skip("takes no key")
		}
		b := newBalancer(t, balancer.Config{})
		r := &balancer.Request{View: service(50), Strategy: s, Key: "k"}
		first := b.More(epoch, r, pick(t, b, epoch, r), 3)
		if second := b.More(epoch, r, pick(t, b, epoch, r), 3); !slices.Equal(first, second) {
			t.Errorf("got %v, then %v", first, second)
		}
	})
}

func TestPickAllocatesNothing(t *testing.T) { // alone: others would be counted too
	for _, s := range balancer.Strategies() {
		b := newBalancer(t, balancer.Config{})
		r := &balancer.Request{View: service(100, mixedWeights, inZones(3)), Strategy: s, Key: "k"}
		for _, zone := range []string{"", "z1"} {
			r.Zone = zone
			pick(t, b, epoch, r)
			if n := testing.AllocsPerRun(200, func() { pick(t, b, epoch, r) }); n > 0 {
				t.Errorf("%s, zone %q: a pick allocates %v times", s.Name(), zone, n)
			}
		}
		n := testing.AllocsPerRun(200, func() {
			c, err := b.Start(epoch, r)
			if err != nil {
				t.Error(err)
			}
			b.Done(epoch, c, balancer.Outcome{Latency: time.Millisecond})
		})
		if n > 0 {
			t.Errorf("%s: a pick that counts, and its outcome, allocate %v times", s.Name(), n)
		}
	}
}

// TestAtOnce lets everything happen at once, for the race detector, and asks in the
// end that nothing is left in flight.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, s balancer.Strategy) {
		b := newBalancer(t, balancer.Config{Node: "n1"})
		v := with(service(20, mixedWeights, inZones(3)), func(s *muster.Settings) { s.SlowStart = muster.Duration(time.Minute) })
		views := []*muster.View{v, again(v), v.Filtered(func(i *muster.Instance) bool { return i.Zone != "z2" })}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				now := epoch
				for k := range 300 {
					now = now.Add(50 * time.Millisecond)
					r := &balancer.Request{View: views[k%3], Strategy: s, Key: fmt.Sprint(k), Zone: []string{"", "z1"}[k%2]}
					c, err := b.Start(now, r)
					if err != nil {
						t.Error(err)
						return
					}
					switch o := (balancer.Outcome{Failed: c.Instance.ID == "i000003", Latency: time.Duration(k) * time.Microsecond}); k % 4 {
					case 0:
						b.Drop(c)
					case 1:
						id, err := b.Ticket(now, c, time.Second)
						if err == nil && k%8 == 1 {
							err = b.Redeem(now, id, o) // unless it ran out on the others' clocks
						}
						if err != nil && muster.CodeOf(err) != muster.CodeUnknownTicket {
							t.Error(err)
						}
					default:
						b.Done(now, c, o)
					}
					switch g {
					case 0:
						b.More(now, r, c, 3)
					case 1:
						for _, p := range b.Export(now) {
							if err := b.Import(now, "n2", p); err != nil {
								t.Error(err)
							}
						}
					case 2:
						b.Stats(now, v)
					}
				}
			})
		}
		wg.Wait()
		now := epoch.Add(time.Hour)
		pick(t, b, now, &balancer.Request{View: v, Strategy: s, Key: "k"}) // ends what ran out
		if st := b.Stats(now, v); st.InFlight != 0 {
			t.Errorf("in the end %d are in flight", st.InFlight)
		}
		for _, i := range b.Stats(now, v).Instances {
			if i.InFlight != 0 {
				t.Errorf("in the end %d are in flight on %s", i.InFlight, i.ID)
			}
		}
	})
}
