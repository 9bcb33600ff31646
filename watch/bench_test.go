package watch_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-registry/muster/watch"
)

// fleet is many streams, each read by a goroutine of its own that renders what it
// gets, as a handler would.
type fleet struct {
	delivered atomic.Int64 // changes
	target    atomic.Int64 // of delivered
	reached   chan struct{}
	synced    sync.WaitGroup
	done      sync.WaitGroup
	cancel    context.CancelFunc
}

func newFleet(t testing.TB, b *bench, n int, spec func(int) watch.Spec) *fleet {
	f := &fleet{reached: make(chan struct{}, 1)}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(t.Context())
	f.synced.Add(n)
	for i := range n {
		s, err := b.hub.Subscribe(ctx, spec(i))
		if err != nil {
			t.Fatal(err)
		}
		f.done.Go(func() { f.read(ctx, s) })
	}
	f.synced.Wait()
	return f
}

func (f *fleet) read(ctx context.Context, s *watch.Stream) {
	defer s.Close()
	for synced := false; ; {
		m, err := s.Next(ctx)
		if err != nil {
			return
		}
		switch m.Kind {
		case watch.KindChange:
			for piece := range m.Frame(watch.SSE) {
				_, _ = io.Discard.Write(piece)
			}
			if f.delivered.Add(1) == f.target.Load() {
				f.reached <- struct{}{}
			}
		case watch.KindSynced:
			if !synced {
				synced = true
				f.synced.Done()
			}
		}
	}
}

func (f *fleet) stop() {
	f.cancel()
	f.done.Wait()
}

func batches(service string, n int) []watch.Batch {
	r := newReplica()
	all := make([]watch.Batch, n)
	for i := range all {
		all[i] = r.apply(logEntry{raft: uint64(i + 1), ops: []op{{service: service, id: "i", version: fmt.Sprint(i)}}})
	}
	return all
}

// BenchmarkPublish is what one change costs the writer, with watchers of other
// services and of prefixes that it does not have: it must not depend on them.
func BenchmarkPublish(b *testing.B) {
	for _, watchers := range []int{0, 1_000, 10_000} {
		b.Run(fmt.Sprint("others=", watchers), func(b *testing.B) {
			bench := newBench(b, watch.Config{})
			f := newFleet(b, bench, watchers, func(i int) watch.Spec {
				if i%10 == 0 {
					return watch.Spec{Prefix: fmt.Sprint("other-", i)}
				}
				return services(fmt.Sprint("other-", i))
			})
			defer f.stop()
			log := batches("web", b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				bench.hub.Applied(log[i])
			}
			b.StopTimer()
			if n := bench.metric("spurious_wakes_total"); n > 0 {
				b.Errorf("%v wakes for nothing", n)
			}
		})
	}
}

// BenchmarkFanOut is one change to 10,000 watchers of its service, until the last
// one has rendered it; the writer's own part of that beside it.
func BenchmarkFanOut(b *testing.B) {
	for _, kind := range []string{"service", "all"} {
		b.Run(kind, func(b *testing.B) {
			const watchers = 10_000
			bench := newBench(b, watch.Config{MinWakeInterval: time.Nanosecond})
			spec := services("web")
			if kind == "all" {
				spec = watch.Spec{}
			}
			f := newFleet(b, bench, watchers, func(int) watch.Spec { return spec })
			defer f.stop()
			log := batches("web", b.N)
			var writer time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				f.target.Store(int64(i+1) * watchers)
				start := time.Now()
				bench.hub.Applied(log[i])
				writer += time.Since(start)
				<-f.reached
			}
			b.ReportMetric(float64(writer.Nanoseconds())/float64(b.N), "writer-ns/op")
			b.ReportMetric(bench.metric("encodings_total")/float64(b.N), "encodings/op")
		})
	}
}

// BenchmarkSnapshotAll is the first views of 10,000 services for one stream, and
// for a hundred at once, who share them.
func BenchmarkSnapshotAll(b *testing.B) {
	for _, streams := range []int{1, 100} {
		b.Run(fmt.Sprint("streams=", streams), func(b *testing.B) {
			bench := newBench(b, watch.Config{})
			var ops []op
			for n := range 10_000 {
				ops = append(ops, op{service: fmt.Sprint("s", n), id: "i", version: "1"})
			}
			bench.write(ops...)
			b.ReportAllocs()
			for b.Loop() {
				newFleet(b, bench, streams, func(int) watch.Spec { return watch.Spec{} }).stop()
			}
		})
	}
}

// footprint opens streams that wait and returns what each takes, its goroutine
// included.
func footprint(t testing.TB, n int, spec func(int) watch.Spec) float64 {
	b := newBench(t, watch.Config{})
	b.put("web")
	use := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc + m.StackInuse)
	}
	before := use()
	f := newFleet(t, b, n, spec)
	defer f.stop()
	b.put("web")
	return (use() - before) / float64(n)
}

// TestIdleStreamsAreLean holds the price of 10,000 watchers that wait.
func TestIdleStreamsAreLean(t *testing.T) {
	for name, spec := range map[string]func(int) watch.Spec{
		"one service":        func(int) watch.Spec { return services("web") },
		"a service each":     func(n int) watch.Spec { return services(fmt.Sprint("s", n)) },
		"everything":         func(int) watch.Spec { return watch.Spec{} },
		"ten services, each": func(n int) watch.Spec { return services(tenOf(n)...) },
	} {
		t.Run(name, func(t *testing.T) {
			each := footprint(t, 10_000, spec)
			t.Logf("%.0f bytes a stream", each)
			if each > 20<<10 {
				t.Errorf("an idle stream takes %.0f bytes, want at most 20 KiB", each)
			}
		})
	}
}

func tenOf(n int) (names []string) {
	for i := range 10 {
		names = append(names, fmt.Sprintf("s%d-%d", n%1000, i))
	}
	return names
}

// TestStuckStreamsCostNothing: streams that are never read do not grow while the
// log goes on, and cost the writer and the others nothing.
func TestStuckStreamsCostNothing(t *testing.T) {
	b := newBench(t, watch.Config{MaxEvents: 100})
	b.put("web")
	for range 1000 {
		b.open(services("web"))
		stuck := b.open(watch.Spec{})
		for m := next(t, stuck); m.Kind != watch.KindSynced; m = next(t, stuck) {
		}
	}
	live := b.open(services("web"))
	for m := next(t, live); m.Kind != watch.KindSynced; m = next(t, live) {
	}
	use := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before uint64
	for n := range 5000 {
		index := b.put("web")
		if m := next(t, live); m.Index != index || m.Kind != watch.KindChange {
			t.Fatalf("the one that reads got %q, want the change %d", text(m), index)
		}
		if n == 500 {
			before = use()
		}
	}
	if after := use(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}
