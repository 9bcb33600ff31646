package balancer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/muster-registry/muster/balancer"
)

var sizes = []int{10, 1_000, 100_000}

// BenchmarkPick is a pick after the first one of a view, with weights that differ.
// Every size is to cost the same within 2×, rendezvous excepted, and nothing is to
// be allocated.
func BenchmarkPick(b *testing.B) {
	for _, s := range balancer.Strategies() {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", s.Name(), n), func(b *testing.B) {
				bal := newBalancer(b, balancer.Config{})
				v := service(n, mixedWeights)
				if s.Name() == "ewma" {
					teach(b, bal, v)
				}
				keys := manyKeys(10_000)
				r := &balancer.Request{View: v, Strategy: s}
				pick := func(k int) {
					r.Key = keys[k%len(keys)]
					if _, err := bal.Pick(epoch.Add(time.Duration(k)*time.Microsecond), r); err != nil {
						b.Fatal(err)
					}
				}
				for k := range 1000 {
					pick(k)
				}
				b.ReportAllocs()
				k := 0
				for b.Loop() {
					k++
					pick(k)
				}
			})
		}
	}
}

// BenchmarkPickInFlight is a pick that counts as in flight, and its outcome: what a
// client does for every request.
func BenchmarkPickInFlight(b *testing.B) {
	for _, name := range []string{"round_robin", "least_request", "ewma", "bounded_hash"} {
		b.Run(name, func(b *testing.B) {
			bal := newBalancer(b, balancer.Config{})
			r := &balancer.Request{View: service(1000, mixedWeights), Strategy: strategy(b, name), Key: "k"}
			b.ReportAllocs()
			k := 0
			for b.Loop() {
				k++
				now := epoch.Add(time.Duration(k) * time.Microsecond)
				c, err := bal.Start(now, r)
				if err != nil {
					b.Fatal(err)
				}
				bal.Done(now, c, balancer.Outcome{Latency: time.Millisecond})
			}
		})
	}
}

// BenchmarkPickEjected is a pick while a tenth of the service is ejected, and one
// that prefers a zone.
func BenchmarkPickEjected(b *testing.B) {
	for _, name := range []string{"round_robin", "weighted_round_robin", "weighted_random", "consistent_hash"} {
		for _, zone := range []string{"", "z1"} {
			b.Run(fmt.Sprintf("%s/zone=%s", name, zone), func(b *testing.B) {
				bal := newBalancer(b, balancer.Config{})
				v := service(1000, mixedWeights, inZones(3))
				for k := range 100 {
					fail(b, bal, epoch, v, v.Instances[k*10].ID, 5)
				}
				keys := manyKeys(1024)
				r := &balancer.Request{View: v, Strategy: strategy(b, name), Zone: zone}
				b.ReportAllocs()
				k := 0
				for b.Loop() {
					k++
					r.Key = keys[k%len(keys)]
					if _, err := bal.Pick(epoch, r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkPickParallel is picks by all processors at once.
func BenchmarkPickParallel(b *testing.B) {
	for _, s := range balancer.Strategies() {
		if s.Name() == "rendezvous" {
			continue
		}
		b.Run(s.Name(), func(b *testing.B) {
			bal := newBalancer(b, balancer.Config{})
			v := service(1000, mixedWeights)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := &balancer.Request{View: v, Strategy: s, Key: "key"}
				for pb.Next() {
					if _, err := bal.Pick(epoch, r); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkFirstPick is the first pick of a new view, which builds what the strategy
// needs of it.
func BenchmarkFirstPick(b *testing.B) {
	for _, s := range balancer.Strategies() {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", s.Name(), n), func(b *testing.B) {
				bal := newBalancer(b, balancer.Config{})
				v := service(n, mixedWeights)
				for b.Loop() {
					next := again(v)
					if _, err := bal.Pick(epoch, &balancer.Request{View: next, Strategy: s, Key: "k"}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
