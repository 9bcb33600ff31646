package balancer_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// epoch is the time at which the tests begin.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// seeded is a source of chance that is the same in every run.
func seeded(seed uint64) func() uint64 {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1))
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Uint64()
	}
}

func newBalancer(t testing.TB, cfg balancer.Config) *balancer.Balancer {
	t.Helper()
	b, err := balancer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// a change is made to the k-th instance of a service.
type change func(k int, i *muster.Instance)

// service makes a view of n healthy instances, i000000 and so on.
func service(n int, changes ...change) *muster.View {
	v := &muster.View{Namespace: "default", Service: "web", Index: 7, Instances: make([]*muster.Instance, n)}
	for k := range v.Instances {
		i := &muster.Instance{
			Namespace: "default", Service: "web", ID: fmt.Sprintf("i%06d", k), Address: "10.0.0.1", Port: 8080,
			Weight: 100, Status: muster.StatusUp, Routable: true, RegisteredAt: epoch.Add(-24 * time.Hour),
		}
		for _, c := range changes {
			c(k, i)
		}
		i.Routable = i.Status == muster.StatusUp && i.Weight > 0
		v.Instances[k] = i
	}
	return v
}

func mixedWeights(k int, i *muster.Instance) { i.Weight = 1 + k*7919%100 }

func inZones(n int) change {
	return func(k int, i *muster.Instance) { i.Zone = fmt.Sprintf("z%d", k%n) }
}

func weights(ws ...int) change {
	return func(k int, i *muster.Instance) { i.Weight = ws[k] }
}

// only makes a change to some instances.
func only(c change, ks ...int) change {
	return func(k int, i *muster.Instance) {
		for _, want := range ks {
			if k == want {
				c(k, i)
			}
		}
	}
}

func status(s muster.Status, cause muster.Cause) change {
	return func(_ int, i *muster.Instance) { i.Status, i.StatusCause = s, cause }
}

func suspect(_ int, i *muster.Instance) { i.Suspect = true }

// again is a view of the same instances with the next index.
func again(v *muster.View) *muster.View {
	return &muster.View{Namespace: v.Namespace, Service: v.Service, Index: v.Index + 1, Instances: v.Instances, Settings: v.Settings}
}

// with gives a view settings.
func with(v *muster.View, set func(*muster.Settings)) *muster.View {
	s := muster.DefaultSettings()
	set(&s)
	v.Settings = &s
	return v
}

func strategy(t testing.TB, name string) balancer.Strategy {
	t.Helper()
	s, err := balancer.ParseStrategy(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func manyKeys(n int) []string {
	keys := make([]string, n)
	for k := range keys {
		keys[k] = fmt.Sprintf("user-%d", k)
	}
	return keys
}

// fail reports failures of one instance.
func fail(t testing.TB, b *balancer.Balancer, now time.Time, v *muster.View, id string, n uint64) {
	t.Helper()
	report(t, b, now, v, id, balancer.Outcomes{Failures: n})
}

func report(t testing.TB, b *balancer.Balancer, now time.Time, v *muster.View, id string, o balancer.Outcomes) {
	t.Helper()
	if err := b.Report(now, v, id, o); err != nil {
		t.Fatal(err)
	}
}

// teach reports a latency of every instance.
func teach(t testing.TB, b *balancer.Balancer, v *muster.View) {
	t.Helper()
	for k, i := range v.Instances {
		report(t, b, epoch, v, i.ID, balancer.Outcomes{Successes: 1, Latency: time.Duration(1+k%10) * time.Millisecond})
	}
}

func pick(t testing.TB, b *balancer.Balancer, now time.Time, r *balancer.Request) balancer.Choice {
	t.Helper()
	c, err := b.Pick(now, r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// picks counts n picks by instance, each with a key of its own.
func picks(t testing.TB, b *balancer.Balancer, now time.Time, r balancer.Request, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for k := range n {
		r.Key = fmt.Sprintf("key-%d", k)
		got[pick(t, b, now, &r).Instance.ID]++
	}
	return got
}
