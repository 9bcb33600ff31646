package main

import (
	"context"
	"flag"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// floodFor is how long BenchmarkFloodOfReads floods: 20 s do for a look, 10 min for a
// proof.
var floodFor = flag.Duration("flood.for", 20*time.Second, "how long BenchmarkFloodOfReads floods")

// BenchmarkFloodOfReads keeps 10,000 instances of a TTL of 10 s alive on three
// processes, and asks them for ten times as many lists as they can give. Reported are
// the times of single heartbeats, through all nodes, without the flood and in it, what
// was served and shed, and how many leases ran out.
func BenchmarkFloodOfReads(b *testing.B) {
	const services, size = 1000, 10
	nodes := newCluster(b, 3)
	for _, p := range nodes {
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	registerBulk(b, nodes[0], 100)
	fillWith(b, nodes, services, size, "10s")
	ctx, stop := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { keepAlive(ctx, b, nodes, leaseBeats(services, size, 0)) })
	before := expirations(b, nodes)

	quiet := probeBeats(ctx, b, nodes, 3*time.Second)
	able := floodFrom(b, nodes, 12, 0, 3*time.Second)() // as many as there are places
	perSecond := float64(able.Served) / 3

	used := 0.0
	for _, p := range nodes {
		used -= cpuSeconds(b, p)
	}
	const connections = 180
	end := floodFrom(b, nodes, connections, time.Duration(connections/(10*perSecond)*float64(time.Second)), *floodFor)
	took := probeBeats(ctx, b, nodes, *floodFor)
	f := end()
	for _, p := range nodes {
		used += cpuSeconds(b, p)
	}
	if f.Wrong != "" {
		b.Error(f.Wrong)
	}
	ms := func(all []time.Duration, share float64) float64 {
		return float64(all[int(float64(len(all)-1)*share)]) / float64(time.Millisecond)
	}
	if len(quiet) == 0 || len(took) == 0 {
		b.Fatalf("%d heartbeats without the flood, %d in it", len(quiet), len(took))
	}
	b.ReportMetric(ms(quiet, .99), "quiet_p99_ms")
	b.ReportMetric(ms(took, .5), "p50_ms")
	b.ReportMetric(ms(took, .99), "p99_ms")
	b.ReportMetric(ms(took, 1), "max_ms")
	b.ReportMetric(float64(len(took)), "heartbeats")
	b.ReportMetric(perSecond, "capacity/s")
	b.ReportMetric(float64(f.Served)/floodFor.Seconds(), "served/s")
	b.ReportMetric(float64(f.Shed)/floodFor.Seconds(), "shed/s")
	b.ReportMetric(float64(f.Other), "failed")
	b.ReportMetric(used/floodFor.Seconds(), "server_cores")
	b.ReportMetric(expirations(b, nodes)-before, "expired")
	b.ReportMetric(0, "ns/op")
}

// probeBeats sends single heartbeats of one instance through each node, at most fifty
// a second, and returns how long each took, the shortest first.
func probeBeats(ctx context.Context, b *testing.B, nodes []*process, during time.Duration) (all []time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range nodes {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for ; ctx.Err() == nil; <-tick.C {
				start := time.Now()
				status, text, err := request(ctx, client, "PUT", p.url+"/v1/services/fill-7/instances/i-7-0/heartbeat", "")
				took := time.Since(start)
				switch {
				case ctx.Err() != nil:
				case err != nil || status != 200:
					b.Errorf("a heartbeat: %d %s %v", status, text, err)
				default:
					mu.Lock()
					all = append(all, took)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all
}

// keepAlive sends each batch of heartbeats every 3 s until ctx ends, evenly spread.
func keepAlive(ctx context.Context, b *testing.B, nodes []*process, bodies []string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for n, body := range bodies {
		wg.Go(func() {
			tick := time.NewTicker(3 * time.Second)
			defer tick.Stop()
			for {
				if status, text, err := request(ctx, client, "POST", nodes[n%3].url+"/v1/heartbeats", body); ctx.Err() == nil && (err != nil || status != 200) {
					b.Logf("a batch of heartbeats: %d %.300s %v", status, text, err)
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
}

// expirations is how many leases the nodes have ended because they ran out.
func expirations(b testing.TB, nodes []*process) (sum float64) {
	for _, p := range nodes {
		sum += metric(b, p, "muster_lease_expirations_total")
	}
	return sum
}
