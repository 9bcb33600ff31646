package balancer_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

func keyed(t *testing.T, test func(t *testing.T, s balancer.Strategy)) {
	t.Helper()
	every(t, func(t *testing.T, s balancer.Strategy) {
		if !s.Keyed() {
			t.Skip("takes no key")
		}
		test(t, s)
	})
}

// homes is where each key lives.
func homes(t *testing.T, b *balancer.Balancer, v *muster.View, s balancer.Strategy, keys []string) map[string]string {
	t.Helper()
	at := make(map[string]string, len(keys))
	for _, k := range keys {
		at[k] = pick(t, b, epoch, &balancer.Request{View: v, Strategy: s, Key: k}).Instance.ID
	}
	return at
}

// without is v without one instance.
func without(v *muster.View, k int) *muster.View {
	next := again(v)
	next.Instances = append(append([]*muster.Instance{}, v.Instances[:k]...), v.Instances[k+1:]...)
	return next
}

// TestStability: when one of 100 instances goes, its keys have to move, and at most
// 2 % of the others may.
func TestStability(t *testing.T) {
	t.Parallel()
	keyed(t, func(t *testing.T, s balancer.Strategy) {
		b := newBalancer(t, balancer.Config{})
		keys := manyKeys(6_000)
		for name, c := range map[string]change{"equal": weights100, "mixed": mixedWeights} {
			v := service(100, c)
			before := homes(t, b, v, s, keys)
			for _, gone := range []int{0, 37, 99} {
				after := homes(t, b, without(v, gone), s, keys)
				moved, others := 0, 0
				for k, home := range before {
					if home == v.Instances[gone].ID {
						continue
					}
					others++
					if after[k] != home {
						moved++
					}
				}
				share := float64(moved) / float64(others)
				if share > 0.02 || s.Name() == "rendezvous" && moved > 0 {
					t.Errorf("%s weights, %d gone: %.2f %% of the other keys moved", name, gone, share*100)
				}
				t.Logf("%s weights, %d gone: %.2f %% of the other keys moved", name, gone, share*100)
			}
		}
	})
}

func weights100(int, *muster.Instance) {}

// TestEjectionMovesOnlyItsKeys: the table does not change for an ejection, and when
// that is over every key is back.
func TestEjectionMovesOnlyItsKeys(t *testing.T) {
	t.Parallel()
	keyed(t, func(t *testing.T, s balancer.Strategy) {
		b := newBalancer(t, balancer.Config{})
		v, keys := service(30), manyKeys(5000)
		before := homes(t, b, v, s, keys)
		fail(t, b, epoch, v, "i000004", 5)
		spread := map[string]int{}
		for k, home := range homes(t, b, v, s, keys) {
			switch {
			case before[k] == "i000004":
				spread[home]++
			case before[k] != home:
				t.Errorf("key %s moved from %s to %s", k, before[k], home)
			}
		}
		if spread["i000004"] > 0 || len(spread) < 25 {
			t.Errorf("the keys of the ejected went to %v, want all others", spread)
		}
	})
}

// TestBoundedLoad: whatever the keys, nobody holds more than the bound, and a key
// that fits in is where consistent_hash has it.
func TestBoundedLoad(t *testing.T) {
	t.Parallel()
	for _, factor := range []int{105, 125, 200} {
		for name, c := range map[string]change{"equal": weights100, "mixed": mixedWeights} {
			t.Run(fmt.Sprintf("%s weights, factor %d", name, factor), func(t *testing.T) {
				t.Parallel()
				b := newBalancer(t, balancer.Config{})
				v := with(service(20, c), func(s *muster.Settings) { s.LoadFactor = factor })
				sum := 0
				for _, i := range v.Instances {
					sum += i.Weight
				}
				s, plain := strategy(t, "bounded_hash"), strategy(t, "consistent_hash")
				chance := rand.New(rand.NewPCG(1, 1))
				held := map[*muster.Instance]int{}
				var open []balancer.Choice
				home := 0
				for k := range 20_000 {
					if len(open) > 0 && chance.IntN(100) < 48 {
						n := chance.IntN(len(open))
						held[open[n].Instance]--
						b.Done(epoch, open[n], balancer.Outcome{})
						open[n] = open[len(open)-1]
						open = open[:len(open)-1]
						continue
					}
					key := fmt.Sprint(int(chance.ExpFloat64() * 3)) // few keys make most requests
					r := &balancer.Request{View: v, Strategy: s, Key: key}
					c, err := b.Start(epoch, r)
					if err != nil {
						t.Fatal(err)
					}
					open = append(open, c)
					held[c.Instance]++
					bound := (factor*len(open)*c.Instance.Weight + 100*sum - 1) / (100 * sum)
					if held[c.Instance] > bound {
						t.Fatalf("step %d: %s holds %d of %d in flight, its bound is %d", k, c.Instance.ID, held[c.Instance], len(open), bound)
					}
					if c.Instance == pick(t, b, epoch, &balancer.Request{View: v, Strategy: plain, Key: key}).Instance {
						home++
					}
				}
				if home < 500 {
					t.Errorf("only %d picks stayed at home", home)
				}
			})
		}
	}
}

// TestBoundedLoadAtOnce: the bound holds when many pick at once.
func TestBoundedLoadAtOnce(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	v := service(10)
	s := strategy(t, "bounded_hash")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if _, err := b.Start(epoch, &balancer.Request{View: v, Strategy: s, Key: "the one"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, i := range b.Stats(epoch, v).Instances {
		if i.InFlight > 500 { // 1.25 × 4000 / 10
			t.Errorf("%s holds %d, the bound is 500", i.ID, i.InFlight)
		}
	}
}

// TestBoundedLoadOfAPart: of a filtered view the bound goes by what is in flight
// there, off by at most one.
func TestBoundedLoadOfAPart(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	whole := service(200, inZones(2))
	part := whole.Filtered(func(i *muster.Instance) bool { return i.Zone == "z0" })
	s := strategy(t, "bounded_hash")
	start := func(r *balancer.Request) *muster.Instance {
		t.Helper()
		c, err := b.Start(epoch, r)
		if err != nil {
			t.Fatal(err)
		}
		return c.Instance
	}
	held := map[string]int{}
	for k := range 3000 { // elsewhere much is going on
		held[start(&balancer.Request{View: whole.Filtered(func(i *muster.Instance) bool { return i.Zone == "z1" }), Strategy: strategy(t, "random"), Key: fmt.Sprint(k)}).ID]++
	}
	for k := range 1000 {
		i := start(&balancer.Request{View: part, Strategy: s, Key: fmt.Sprint(k % 3)})
		held[i.ID]++
		if bound := (125*(k+1)+100*100-1)/(100*100) + 1; held[i.ID] > bound {
			t.Fatalf("pick %d: %s holds %d, the bound is %d", k, i.ID, held[i.ID], bound)
		}
	}
	for k := range 300 { // a zone is a part too
		i := start(&balancer.Request{View: whole, Strategy: s, Key: fmt.Sprint(k % 3), Zone: "z0"})
		held[i.ID]++
		if bound := (125*(k+1001)+100*100-1)/(100*100) + 1; i.Zone != "z0" || held[i.ID] > bound {
			t.Fatalf("pick %d: %s in %s holds %d, the bound is %d", k, i.ID, i.Zone, held[i.ID], bound)
		}
	}
}
