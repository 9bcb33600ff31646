package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// rollingRounds is how often BenchmarkRollingRestart restarts every node.
var rollingRounds = flag.Int("rolling.rounds", 4, "how often BenchmarkRollingRestart restarts every node")

// callers use a registry as clients should: through all nodes, with one more try at the
// next node where the first came to nothing.
type callers struct {
	t      testing.TB
	nodes  []*process
	client *http.Client

	mu     sync.Mutex
	acked  []time.Time     // guarded by mu: when each write was acknowledged
	took   []time.Duration // guarded by mu: how long each call took, both tries together
	again  int             // guarded by mu: calls that took two tries
	failed int             // guarded by mu: calls that two tries did not help
}

// call makes one call, at node n first.
func (c *callers) call(ctx context.Context, n int, method, path, body string) {
	start := time.Now()
	var said string
	for try := range 2 {
		if try == 1 {
			c.mu.Lock()
			c.again++
			c.mu.Unlock()
		}
		status, text, err := request(ctx, c.client, method, c.nodes[(n+try)%len(c.nodes)].url+path, body)
		if ctx.Err() != nil {
			return
		}
		if err == nil && status < 300 {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.took = append(c.took, time.Since(start))
			if strings.HasPrefix(body, `{"address"`) {
				c.acked = append(c.acked, time.Now())
			}
			return
		}
		said += fmt.Sprintf(" %d %.200s %v;", status, text, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed++; c.failed <= 5 {
		c.t.Errorf("%s %s failed twice:%s", method, path, said)
	}
}

// run writes, reads and beats without pause until ctx ends.
func (c *callers) run(ctx context.Context) {
	var wg sync.WaitGroup
	for s := range 6 {
		wg.Go(func() {
			for n := s; ctx.Err() == nil; n++ {
				c.call(ctx, n, "PUT", fmt.Sprintf("/v1/services/web-%d/instances/i-%d", s, n%500), fmt.Sprintf(`{"address":"10.0.%d.1","port":%d,"ttl":"none"}`, s, 1+n%65535))
			}
		})
	}
	for s := range 3 {
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for n := s; ctx.Err() == nil; n++ {
				c.call(ctx, n, "GET", "/v1/services/fleet-1?consistency="+[]string{"local", "linearizable"}[n/3%2], "")
				c.call(ctx, n, "PUT", "/v1/services/fleet-0/instances/i-1/heartbeat", "")
				<-tick.C
			}
		})
	}
	wg.Wait()
}

// gap is the longest time without an acknowledged write between two moments.
func (c *callers) gap(from, to time.Time) (longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := from
	for _, at := range c.acked {
		if at.After(from) && at.Before(to) {
			longest, last = max(longest, at.Sub(last)), at
		}
	}
	return max(longest, to.Sub(last))
}

// rolling restarts every node of three, round after round, the leader first and last in
// turn, under load, and returns the longest gap between writes of each restart.
func rolling(t testing.TB, rounds int) (gaps []time.Duration, c *callers) {
	t.Helper()
	nodes := newCluster(t, 3)
	for _, p := range nodes {
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	c = &callers{t: t, nodes: nodes, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}}
	defer c.client.CloseIdleConnections()
	beats := &fleet{t: t, nodes: nodes, client: &http.Client{}, ttl: 3 * time.Second, alive: map[string]bool{}}
	beats.register(200)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { beats.run(ctx) })
	wg.Go(func() { c.run(ctx) })
	waitFor(t, "writes", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.acked) > 100 })
	expired := 0.0
	for round := range rounds {
		leader := leaderOf(t, nodes)
		order := slices.Clone(nodes)
		slices.SortFunc(order, func(a, b *process) int {
			if (a == leader) == (b == leader) {
				return 0
			}
			if (a == leader) == (round%2 == 0) {
				return -1
			}
			return 1
		})
		for _, p := range order {
			expired += metric(t, p, "muster_lease_expirations_total") // it begins anew
			from := time.Now()
			p.signal(syscall.SIGTERM)
			if code := p.wait(); code != 0 {
				t.Errorf("%s ended with %d", p.url, code)
			}
			p.start()
			p.waitReady("?require=leader")
			gaps = append(gaps, c.gap(from, time.Now()))
		}
	}
	beats.settle("the last restart")
	stop()
	wg.Wait()
	for _, p := range nodes {
		if strings.Contains(p.log.String(), "without having handed leadership over") {
			t.Errorf("%s stopped without having handed leadership over", p.url)
		}
	}
	if expired += expirations(t, nodes); expired > 0 {
		t.Errorf("%v leases ran out", expired)
	}
	slices.Sort(gaps)
	slices.Sort(c.took)
	return gaps, c
}

// TestRollingRestart: every node of three is stopped and started again, twice, under
// writes, reads and heartbeats through all of them: no call fails that is tried once
// more, nobody expires.
func TestRollingRestart(t *testing.T) {
	gaps, c := rolling(t, 2)
	t.Logf("the longest gaps between writes, a restart: %v; %d calls, %d of them twice, %d failed; the longest took %s",
		gaps, len(c.took), c.again, c.failed, c.took[len(c.took)-1].Round(time.Millisecond))
	if len(c.took) < 500 {
		t.Errorf("only %d calls: too few to prove anything", len(c.took))
	}
}

// BenchmarkRollingRestart reports what clients see of it.
func BenchmarkRollingRestart(b *testing.B) {
	gaps, c := rolling(b, *rollingRounds)
	ms := func(all []time.Duration, share float64) float64 {
		return float64(all[int(float64(len(all)-1)*share)]) / float64(time.Millisecond)
	}
	b.ReportMetric(ms(gaps, .5), "gap_p50_ms")
	b.ReportMetric(ms(gaps, .99), "gap_p99_ms")
	b.ReportMetric(ms(gaps, 1), "gap_max_ms")
	b.ReportMetric(float64(len(gaps)), "restarts")
	b.ReportMetric(float64(len(c.took)), "calls")
	b.ReportMetric(ms(c.took, 1), "call_max_ms")
	b.ReportMetric(float64(c.again), "calls_tried_twice")
	b.ReportMetric(float64(c.failed), "calls_failed")
	b.ReportMetric(0, "ns/op")
}
