package clustertest_test

import (
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster/clustertest"
)

// watchers is how many the benchmarks open. They live in a process of their own:
// each of the two needs as many files.
const watchers = 10_000

// BenchmarkWatch: 10,000 watchers of one service of ten instances, spread over
// three nodes. Of a change to it: how long after the write's answer the last of
// them was told, and how often it was encoded on a node; and the memory of a node.
func BenchmarkWatch(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as muster server does
	c := clustertest.Start(b, 3, clustertest.Profile("default"))
	fill(b, c, 1, 10)
	before := resident(b)
	var addrs []string
	for _, m := range c.Members {
		addrs = append(addrs, host(m))
	}
	s := startSwarm(b, order{Addrs: addrs, Count: watchers, Path: "/v1/watch?service=fill-0"})
	s.await("synced")
	open := resident(b)
	encodings := func() (sum float64) {
		for _, m := range c.Members {
			sum += metric(b, m, "muster_watch_encodings_total")
		}
		return sum
	}
	encoded := encodings()
	const changes = 20
	var late []float64
	for n := 1; n <= changes; n++ {
		body := fmt.Sprintf(`{"address":"10.0.0.5","port":%d,"ttl":"none","version":"1.4.2","zone":"eu-1a","meta":{"team":"pay"}}`, n)
		resp, text, err := c.Members[n%3].Request("PUT", "/v1/services/fill-0/instances/i-0-0", body, nil)
		answered := time.Now()
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatalf("%v %s", err, text)
		}
		late = append(late, max(0, s.await("change:"+strconv.Itoa(n)).Sub(answered).Seconds()*1000))
	}
	b.ReportMetric(median(late), "ms_last_told")
	b.ReportMetric(late[len(late)-1], "ms_last_told_max") // median has sorted them
	b.ReportMetric((encodings()-encoded)/changes/3, "encodings/change/node")
	b.ReportMetric(max(open, resident(b))/3/(1<<20), "MiB/node")
	b.ReportMetric((open-before)/watchers/1024, "KiB/watcher")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkStop: a node of three stops with 10,000 watchers of its own.
func BenchmarkStop(b *testing.B) {
	c := clustertest.Start(b, 3, clustertest.Profile("default"))
	fill(b, c, 1, 10)
	leader := c.Leader()
	s := startSwarm(b, order{Addrs: []string{host(leader)}, Count: watchers, Path: "/v1/watch?service=fill-0"})
	s.await("synced")
	start := time.Now()
	if err := leader.Stop(); err != nil {
		b.Error(err)
	}
	took := time.Since(start)
	s.await("goodbye")
	s.await("closed")
	b.ReportMetric(took.Seconds(), "s_to_stop")
	b.ReportMetric(0, "ns/op")
}

// resident is the memory of this process that is in use, in bytes, after what is
// free was given back.
func resident(b testing.TB) float64 {
	b.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skipf("this system does not tell: %v", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages * os.Getpagesize())
}
