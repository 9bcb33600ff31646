package balancer_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// gauges reads one metric without labels.
func gauges(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "muster_balancer_")
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return got
}

// TestForgets: what is gone from the registry, and what nobody reports on, is not
// remembered for ever, and what is in use is.
func TestForgets(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	b := newBalancer(t, balancer.Config{Registerer: reg, Node: "n1"})
	known := func() int { return int(gauges(t, reg)["known_instances"]) }
	v := service(100)
	r := &balancer.Request{View: v, Strategy: strategy(t, "least_request")}
	pick(t, b, epoch, r)
	if n := known(); n != 100 {
		t.Fatalf("%d are known, want 100", n)
	}
	// Half of them go; one of those still answers a request.
	c := started(t, b, epoch, v)
	for c.Instance.ID < "i000050" {
		b.Drop(c)
		c = started(t, b, epoch, v)
	}
	next := again(v)
	next.Instances = next.Instances[:50]
	r.View = next
	now := epoch
	for range 11 {
		now = now.Add(time.Minute)
		pick(t, b, now, r)
		b.Export(now)
	}
	if n := known(); n != 51 {
		t.Errorf("after 11 minutes %d are known, want those there are and the one in flight", n)
	}
	b.Done(now, c, balancer.Outcome{})
	for range 12 {
		now = now.Add(time.Minute)
		pick(t, b, now, r)
		b.Export(now)
	}
	if n := known(); n != 50 {
		t.Errorf("after 23 minutes %d are known, want 50", n)
	}
	// New ones take the places of the old, and are not taken for them.
	third := service(120)
	third.Index = 20
	r.View = third
	held := map[string]int64{}
	for range 500 {
		c, err := b.Start(now, r)
		if err != nil {
			t.Fatal(err)
		}
		held[c.Instance.ID]++
	}
	for _, i := range b.Stats(now, third).Instances {
		if i.InFlight != held[i.ID] {
			t.Errorf("%s: %d in flight, want %d", i.ID, i.InFlight, held[i.ID])
		}
	}
}

// TestForgetsServices that nobody asks for, and goes on with one that is asked for
// again by a view it knew.
func TestForgetsServices(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	b := newBalancer(t, balancer.Config{Registerer: reg, Node: "n1"})
	v := service(3)
	fail(t, b, epoch, v, "i000000", 1)
	pick(t, b, epoch, &balancer.Request{View: v})
	now := epoch
	for range 75 {
		now = now.Add(time.Minute)
		b.Export(now)
	}
	if n := gauges(t, reg)["known_instances"]; n != 0 {
		t.Errorf("%v are known, want none", n)
	}
	pick(t, b, now, &balancer.Request{View: v})
	fail(t, b, now, v, "i000000", 5)
	if n := picks(t, b, now, balancer.Request{View: v}, 100)["i000000"]; n != 0 {
		t.Errorf("the old view does not see the ejection: %d picks", n)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	b := newBalancer(t, balancer.Config{Registerer: reg, Node: "n1"})
	if _, err := balancer.New(balancer.Config{Registerer: reg}); err == nil {
		t.Error("a second one registered the same metrics")
	}
	v := service(4)
	for k := range 7 {
		pick(t, b, epoch, &balancer.Request{View: v, Strategy: strategy(t, "random")})
		pick(t, b, epoch, &balancer.Request{View: v, Strategy: strategy(t, "rendezvous"), Key: fmt.Sprint(k)})
	}
	pick(t, b, epoch, &balancer.Request{View: service(2, status(muster.StatusDown, muster.CauseCheckFailed))})
	if _, err := b.Pick(epoch, &balancer.Request{View: service(0)}); err == nil {
		t.Fatal("picked from nobody")
	}
	ticket(t, b, epoch, v, time.Second)
	ticket(t, b, epoch, v, time.Minute)
	now := epoch.Add(2 * time.Second)
	pick(t, b, now, &balancer.Request{View: v})
	fail(t, b, now, v, "i000001", 5)
	report(t, b, now, v, "i000002", balancer.Outcomes{Successes: 3, Failures: 4})
	b.Export(now)
	if err := b.Import(now, "n2", []byte{1}); err == nil {
		t.Fatal("took a malformed packet")
	}
	got := gauges(t, reg)
	for name, want := range map[string]float64{
		"picks_total picked random": 7, "picks_total picked rendezvous": 7, "picks_total picked round_robin": 3,
		"picks_total panic round_robin": 1, "picks_total none round_robin": 1,
		"outcomes_total success": 3, "outcomes_total failure": 9, "tickets": 1, "tickets_lost_total expired": 1,
		"ejections_total consecutive": 1, "ejections_total failure_rate": 1, "ejected_instances": 2,
		"packets_total sent": 1, "packets_total received": 1, "packets_total refused": 1,
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
}

// TestLog: an ejection and its end are what an operator wants to read of.
func TestLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b := newBalancer(t, balancer.Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))})
	v := service(4)
	fail(t, b, epoch, v, "i000002", 5)
	report(t, b, epoch.Add(11*time.Second), v, "i000002", balancer.Outcomes{Successes: 3})
	const want = "level=INFO msg=\"instance ejected\" instance=default/web/i000002 cause=consecutive duration=10s strikes=1\n" +
		"level=INFO msg=\"instance readmitted\" instance=default/web/i000002\n"
	if log.String() != want {
		t.Errorf("got\n%swant\n%s", log.String(), want)
	}
}

// TestTwoBalancersShareAView, and nothing else.
func TestTwoBalancersShareAView(t *testing.T) {
	t.Parallel()
	v := service(3)
	one, two := newBalancer(t, balancer.Config{}), newBalancer(t, balancer.Config{})
	pick(t, two, epoch, &balancer.Request{View: v})
	fail(t, one, epoch, v, "i000000", 5)
	if n := picks(t, one, epoch, balancer.Request{View: v}, 90)["i000000"]; n != 0 {
		t.Errorf("the one that knows picked it %d times", n)
	}
	if n := picks(t, two, epoch, balancer.Request{View: v}, 90)["i000000"]; n != 30 {
		t.Errorf("the other picked it %d times, want 30", n)
	}
}
