package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkLeases keeps 100,000 instances of a TTL of 10 s alive on three
// processes, by batches of 1,000 through all nodes at the pace they ask for, and
// reports what that costs each process in cores. Then 10,000 of them, 10 in each
// service of 100, fall silent at once: reported are the log entries that end them,
// when the last one was gone, and how often the leader changed.
func BenchmarkLeases(b *testing.B) {
	const services, size, silent, beating = 1000, 100, 10, 20 * time.Second
	nodes := newCluster(b, 3)
	for _, p := range nodes {
		p.args[len(p.args)-1] = "default" // the profile
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	for filled := time.Now(); ; filled = time.Now() {
		// Once more where the first may have run out before the last came.
		if fillWith(b, nodes, services, size, "10s"); time.Since(filled) < 6*time.Second {
			break
		}
	}
	leader := leaderOf(b, nodes)

	beats := leaseBeats(services, size, silent)
	quiet, rest := beats[:services*silent/1000], beats[services*silent/1000:]
	keep := func(bodies []string, until time.Time) {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}
		defer client.CloseIdleConnections()
		var wg sync.WaitGroup
		for n, body := range bodies {
			wg.Go(func() {
				pause := time.Duration(n) * 3 * time.Second / time.Duration(len(bodies)) // evenly spread
				for {
					select {
					case <-time.After(pause):
					case <-b.Context().Done():
						return
					}
					if time.Now().After(until) {
						return
					}
					status, text, err := request(b.Context(), client, "POST", nodes[n%3].url+"/v1/heartbeats", body)
					if err != nil || status != 200 || !strings.Contains(text, `"unknown":[]`) {
						b.Errorf("a batch of heartbeats: %d %.300s %v", status, text, err)
						return
					}
					pause = 3 * time.Second
				}
			})
		}
		wg.Wait()
	}

	used := make(map[*process]float64)
	for _, p := range nodes {
		used[p] = -cpuSeconds(b, p)
	}
	started := time.Now()
	end := started.Add(beating)
	var wg sync.WaitGroup
	wg.Go(func() { keep(rest, end.Add(15*time.Second)) })
	keep(quiet, end)
	followers := 0.0
	for _, p := range nodes {
		used[p] = (used[p] + cpuSeconds(b, p)) / time.Since(started).Seconds()
		if p != leader {
			followers = max(followers, used[p])
		}
	}
	b.ReportMetric(used[leader], "leader_cores")
	b.ReportMetric(followers, "follower_cores")

	entries, changes := metric(b, leader, `muster_lease_decisions_total{kind="expire",outcome="applied"}`), metric(b, leader, "muster_cluster_leader_changes_total")
	before := metric(b, leader, "muster_lease_expirations_total")
	for n, body := range quiet { // one last beat of each, at once
		wg.Go(func() {
			if status, text, err := request(b.Context(), http.DefaultClient, "POST", nodes[n%3].url+"/v1/heartbeats", body); err != nil || status != 200 {
				b.Errorf("a last batch of heartbeats: %d %.300s %v", status, text, err)
			}
		})
	}
	last := time.Now()
	for metric(b, leader, "muster_lease_expirations_total")-before < services*silent && time.Since(last) < patience {
		<-time.NewTimer(50 * time.Millisecond).C
	}
	b.ReportMetric(time.Since(last).Seconds(), "silent_until_gone_s")
	wg.Wait()
	b.ReportMetric(metric(b, leader, "muster_lease_expirations_total")-before, "expired")
	b.ReportMetric(metric(b, leader, `muster_lease_decisions_total{kind="expire",outcome="applied"}`)-entries, "expiry_entries")
	b.ReportMetric(metric(b, leader, "muster_cluster_leader_changes_total")-changes, "leader_changes")
	b.ReportMetric(0, "ns/op")
}

// leaseBeats are bodies of 1,000 heartbeats that cover all instances; those of the
// first silent instances of each service come first.
func leaseBeats(services, size, silent int) (bodies []string) {
	var items []string
	add := func(from, to int) {
		for s := range services {
			for n := from; n < to; n++ {
				items = append(items, fmt.Sprintf(`{"service":"fill-%d","id":"i-%d-%d"}`, s, s, n))
				if len(items) == 1000 {
					bodies = append(bodies, `{"instances":[`+strings.Join(items, ",")+`]}`)
					items = items[:0]
				}
			}
		}
	}
	add(0, silent)
	add(silent, size)
	return bodies
}

// metric reads one metric of a node; 0 where it is not there yet.
func metric(b testing.TB, p *process, name string) float64 {
	b.Helper()
	status, text, err := request(b.Context(), http.DefaultClient, "GET", p.url+"/metrics", "")
	if err != nil || status != 200 {
		b.Fatalf("reading the metrics: %d %v", status, err)
	}
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				b.Fatal(err)
			}
			return v
		}
	}
	return 0
}
