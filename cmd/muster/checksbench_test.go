package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

// BenchmarkChecks has three processes run 10,000 http checks every 5 s against a
// server of this process, and reports the CPU that a node takes for that, how
// evenly the probes come, and how long it takes to find out about an address that
// fails, and about all of them. CPU is that of the busiest node, in cores.
func BenchmarkChecks(b *testing.B) {
	const addresses, each = 250, 40
	nodes := newCluster(b, 3)
	for _, p := range nodes {
		p.args[len(p.args)-1] = "default" // the profile
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	port, hits, sick, stop := checkTarget(b)
	client := &http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	idle := busiest(b, nodes, 5*time.Second)
	b.ReportMetric(idle, "idle_cores")
	began := time.Now()
	for a := range addresses {
		var items []string
		for n := range each {
			items = append(items, fmt.Sprintf(`{"service":"s-%d","id":"i-%d-%d","address":"127.1.%d.1","port":%d,"ttl":"none","checks":[{"type":"http","path":"/health"}]}`, a%100, a, n, a, port))
		}
		status, text, err := request(b.Context(), client, "POST", nodes[a%3].url+"/v1/batch/register?timeout=30s", `{"instances":[`+strings.Join(items, ",")+`]}`)
		if err != nil || status != 200 {
			b.Fatalf("a batch: %d %.300s %v", status, text, err)
		}
	}
	b.ReportMetric(time.Since(began).Seconds(), "registered_s")
	await(b, "all to be up", func() bool { return routable(b, client, nodes[0]) == addresses*each })
	b.ReportMetric(time.Since(began).Seconds(), "all_up_s")

	before, from := hits.Load(), time.Now()
	b.ReportMetric(busiest(b, nodes, 12*time.Second), "cores")
	b.ReportMetric(float64(hits.Load()-before)/time.Since(from).Seconds(), "probes/s")
	b.ReportMetric(evenness(b, hits), "worst_100ms_over_mean")

	from = time.Now()
	sick.Store(true) // the address 127.1.7.1, all of it in the service s-7
	await(b, "the failure to be found", func() bool {
		_, text, err := request(b.Context(), client, "GET", nodes[0].url+"/v1/services/s-7?status=down", "")
		return err == nil && strings.Count(text, `"address":"127.1.7.1"`) == each
	})
	b.ReportMetric(time.Since(from).Seconds(), "all_40_found_s")

	from = time.Now()
	stop() // now all of them fail
	await(b, "all to be down", func() bool { return routable(b, client, nodes[0]) == 0 })
	b.ReportMetric(time.Since(from).Seconds(), "all_10000_found_s")
	b.ReportMetric(0, "ns/op")
}

// routable is how many instances of all services may be given traffic.
func routable(b *testing.B, client *http.Client, p *process) (n int) {
	b.Helper()
	_, text, err := request(b.Context(), client, "GET", p.url+"/v1/services", "")
	var s muster.Services
	if err != nil || json.Unmarshal([]byte(text), &s) != nil {
		b.Fatalf("reading the services: %v %.300s", err, text)
	}
	for _, v := range s.Services {
		n += v.Routable
	}
	return n
}

// checkTarget answers health checks on every loopback address.
func checkTarget(b *testing.B) (port int, hits *atomic.Int64, sick *atomic.Bool, stop func()) {
	b.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		b.Fatal(err)
	}
	hits, sick = new(atomic.Int64), new(atomic.Bool)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					if line, err := r.ReadString('\n'); err != nil || line == "\r\n" {
						break
					}
				}
				hits.Add(1)
				if sick.Load() && strings.HasPrefix(c.LocalAddr().String(), "127.1.7.1:") {
					fmt.Fprint(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
					return
				}
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}()
		}
	}()
	stop = func() { _ = l.Close(); <-done }
	b.Cleanup(stop)
	return l.Addr().(*net.TCPAddr).Port, hits, sick, stop
}

func await(b *testing.B, what string, ok func() bool) {
	b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(90 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			b.Fatalf("waited for %s", what)
		}
	}
}

// busiest is the most CPU that one of the processes takes for a while, in cores.
func busiest(b *testing.B, nodes []*process, span time.Duration) float64 {
	b.Helper()
	before := make([]float64, len(nodes))
	for n, p := range nodes {
		before[n] = cpuSeconds(b, p)
	}
	from := time.Now()
	<-time.After(span)
	most := 0.0
	for n, p := range nodes {
		most = max(most, (cpuSeconds(b, p)-before[n])/time.Since(from).Seconds())
	}
	return most
}

// cpuSeconds is the CPU time that the process has taken.
func cpuSeconds(b *testing.B, p *process) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		b.Skipf("no /proc here: %v", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for _, f := range fields[11:13] { // utime and stime, a hundredth of a second each
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / 100
}

// evenness is how many probes came in the worst tenth of a second of an interval,
// over the mean.
func evenness(b *testing.B, hits *atomic.Int64) float64 {
	b.Helper()
	const parts = 50
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	most, first := int64(0), hits.Load()
	last := first
	for range parts {
		<-tick.C
		now := hits.Load()
		most = max(most, now-last)
		last = now
	}
	return float64(most) * parts / float64(last-first)
}
