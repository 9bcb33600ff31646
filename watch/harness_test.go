package watch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/watch"
)

// bench is one hub that runs over a replica.
type bench struct {
	t    testing.TB
	r    *replica
	hub  *watch.Hub
	reg  *prometheus.Registry
	next uint64      // raft index of the next entry
	done func() bool // the whole log was applied; where a test has one
	stop func()      // ends Run and waits for it; called at the test's end at the latest
}

func newBench(t testing.TB, cfg watch.Config) *bench { return newBenchOn(t, cfg, newReplica()) }

func newBenchOn(t testing.TB, cfg watch.Config, r *replica) *bench {
	t.Helper()
	b := &bench{t: t, r: r, reg: prometheus.NewRegistry()}
	_, b.next = muster.SplitIndex(r.Index())
	b.next++
	hub, err := watch.New(cfg, watch.Deps{State: r, Cluster: r, Registerer: b.reg})
	if err != nil {
		t.Fatal(err)
	}
	b.hub, r.hub = hub, hub
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var done sync.WaitGroup
	done.Go(func() {
		if err := hub.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	b.stop = func() {
		cancel()
		done.Wait()
	}
	t.Cleanup(b.stop)
	return b
}

// write applies one entry in a batch of its own and returns its index.
func (b *bench) write(ops ...op) uint64 {
	index := b.r.apply(logEntry{raft: b.next, ops: ops}).Index
	b.next++
	return index
}

// put registers or changes the only instance of some services in one entry.
func (b *bench) put(services ...string) uint64 {
	var ops []op
	for _, s := range services {
		ops = append(ops, op{service: s, id: "i", version: fmt.Sprint("v", b.next)})
	}
	return b.write(ops...)
}

func (b *bench) open(spec watch.Spec) *watch.Stream {
	b.t.Helper()
	s, err := b.hub.Subscribe(b.t.Context(), spec)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(s.Close)
	return s
}

// metric is the value of a counter, a gauge, or of a histogram's count.
func (b *bench) metric(name string) float64 {
	b.t.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "muster_watch_"+name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	b.t.Fatalf("there is no metric %q", name)
	return 0
}

func services(names ...string) watch.Spec { return watch.Spec{Services: names} }

func from(s watch.Spec, index uint64) watch.Spec {
	s.From = &index
	return s
}

// next takes the next message within a minute.
func next(t testing.TB, s *watch.Stream) watch.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := s.Next(ctx)
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return m
}

// text is a message in short: its kind, its index, and what it is about.
func text(m watch.Message) string {
	out := string(m.Kind)
	if m.Index > 0 {
		epoch, raft := muster.SplitIndex(m.Index)
		if epoch > 0 {
			out += fmt.Sprintf(" %d.%d", epoch, raft)
		} else {
			out += fmt.Sprintf(" %d", raft)
		}
	}
	if m.View != nil {
		out += fmt.Sprintf(" %s:%d", m.View.Service, len(m.View.Instances))
	}
	if m.Kind == watch.KindStale {
		out += " " + m.Stale.String()
	}
	for e := range m.Events {
		out += fmt.Sprintf(" %s/%s", e.Service, e.Type)
	}
	return out
}

// expect takes as many messages as are wanted and compares them.
func expect(t testing.TB, s *watch.Stream, want ...string) {
	t.Helper()
	for n, w := range want {
		if got := text(next(t, s)); got != w {
			t.Fatalf("message %d: got %q, want %q", n, got, w)
		}
	}
}

// silent checks that the stream has nothing to say.
func silent(t testing.TB, s *watch.Stream) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %q, %v, want nothing", text(m), err)
	}
}

func unmarshal(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
}

func wantCode(t testing.TB, err error, want muster.Code) {
	t.Helper()
	if got := muster.CodeOf(err); got != want {
		t.Errorf("got %v, want the code %s", err, want)
	}
}
