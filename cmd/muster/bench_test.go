package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkFootprint fills three processes with 100,000 instances in 1,000
// services by batches, and reports how long that takes, what a node keeps
// resident afterwards, and how long one takes to restart into service.
func BenchmarkFootprint(b *testing.B) {
	nodes := newCluster(b, 3)
	for _, p := range nodes {
		p.args[len(p.args)-1] = "default" // the profile
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	start := time.Now()
	fillWith(b, nodes, 1000, 100, "none")
	b.ReportMetric(time.Since(start).Seconds(), "fill_s")
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	most := 0.0
	for _, p := range nodes {
		most = max(most, resident(b, p))
	}
	b.ReportMetric(most, "RSS_MiB")

	leader := leaderOf(b, nodes)
	p := nodes[0]
	if p == leader {
		p = nodes[1]
	}
	p.signal(syscall.SIGTERM)
	p.wait()
	start = time.Now()
	p.start()
	p.waitReady("?require=leader")
	b.ReportMetric(time.Since(start).Seconds(), "restart_s")
	// What reading the log took is given back soon after.
	least, until := resident(b, p), time.Now().Add(2*time.Second)
	for time.Now().Before(until) {
		least = min(least, resident(b, p))
	}
	b.ReportMetric(least, "restarted_RSS_MiB")
	b.ReportMetric(0, "ns/op")
}

// fillWith registers instances of that TTL, by batches of 500.
func fillWith(b *testing.B, nodes []*process, services, size int, ttl string) {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	batches := make(chan string, 8)
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for body := range batches {
				status, text, err := request(b.Context(), client, "POST", nodes[w%3].url+"/v1/batch/register?timeout=30s", body)
				if err != nil || status != 200 || strings.Contains(text, `"error"`) {
					b.Errorf("a batch: %d %.300s %v", status, text, err)
				}
			}
		})
	}
	var items []string
	for s := range services {
		for n := range size {
			items = append(items, fmt.Sprintf(`{"service":"fill-%d","id":"i-%d-%d","address":"10.%d.%d.%d","port":8080,"ttl":"%s","version":"1.4.2","zone":"eu-1a","tags":["canary"],"meta":{"team":"pay"}}`,
				s, s, n, s%250, n/250, n%250, ttl))
			if len(items) == 500 {
				batches <- `{"instances":[` + strings.Join(items, ",") + `]}`
				items = items[:0]
			}
		}
	}
	close(batches)
	wg.Wait()
}

// resident is what the process keeps in memory, in MiB.
func resident(b *testing.B, p *process) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		b.Skipf("no /proc here: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
