package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

// roomFor is how many MiB a node may grow by: with the race detector everything takes
// several times as much.
func roomFor(mib int64) int64 {
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return 8 * mib
	}
	return mib
}

// heldOpen opens connections and sends the beginning of a request on each.
func heldOpen(t *testing.T, p *process, count int, beginning string) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, count)
	for n := range conns {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatalf("connection %d: %v", n, err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, beginning); err != nil {
			t.Fatalf("connection %d: %v", n, err)
		}
		conns[n] = c
	}
	return conns
}

// endings reads all connections to their ends and counts how they were answered.
func endings(t *testing.T, conns []net.Conn) map[int]int {
	t.Helper()
	var mu sync.Mutex
	count := map[int]int{}
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			status := 0
			_ = c.SetReadDeadline(time.Now().Add(patience))
			r := bufio.NewReader(c)
			if resp, err := http.ReadResponse(r, nil); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body) // what it says is in the status
				status = resp.StatusCode
			}
			if _, err := io.Copy(io.Discard, r); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("a connection stays open: %v", err)
			}
			mu.Lock()
			count[status]++
			mu.Unlock()
		})
	}
	wg.Wait()
	return count
}

// TestSlowloris: 2,500 connections that never end the head of a request and 2,500 that
// never end a body, more than there are places for writes, take nothing from those who
// beat and register, and are all hung up on.
func TestSlowloris(t *testing.T) {
	p := newCluster(t, 1)[0]
	p.start()
	p.waitReady("?require=leader")
	beats := &fleet{t: t, nodes: []*process{p}, client: &http.Client{}, ttl: 3 * time.Second, alive: map[string]bool{}}
	beats.register(100)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { beats.run(ctx) })
	before := p.rss()

	heads := heldOpen(t, p, 2500, "PUT /v1/services/web/instances/i HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	bodies := heldOpen(t, p, 2500, "PUT /v1/services/web/instances/i HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{")
	probing, end := context.WithTimeout(ctx, 2*time.Second)
	defer end()
	var writes []time.Duration
	wg.Go(func() {
		for n := 0; probing.Err() == nil; n++ {
			start := time.Now()
			status, text, err := request(probing, beats.client, "PUT", p.url+fmt.Sprintf("/v1/services/other/instances/i-%d", n), `{"address":"10.0.0.5","port":80}`)
			switch {
			case probing.Err() != nil:
			case err != nil || status != 201:
				t.Errorf("a registration beside them: %d %s %v", status, text, err)
			default:
				writes = append(writes, time.Since(start))
			}
		}
	})
	took := beats.probe(probing)
	grown := (p.rss() - before) >> 20

	var answered map[int]int
	ends := make(chan map[int]int, 1)
	wg.Go(func() { ends <- endings(t, heads) })
	answered = endings(t, bodies)
	if answered[503] < 2500-2*muster.MaxSlowBodies || answered[400] == 0 || answered[400]+answered[503] != 2500 {
		t.Errorf("the slow bodies were answered %v", answered)
	}
	if got := <-ends; got[0]+got[400]+got[408] != 2500 {
		t.Errorf("the slow heads were answered %v", got)
	}
	beats.settle("slow clients")
	beats.checkEvents()
	stop()
	wg.Wait()
	if grown > roomFor(200) {
		t.Errorf("the node grew by %d MiB", grown)
	}
	if len(took) == 0 || len(writes) == 0 {
		t.Fatalf("%d heartbeats and %d registrations beside them", len(took), len(writes))
	}
	slices.Sort(took)
	slices.Sort(writes)
	t.Logf("beside 5,000 slow clients %d heartbeats took %s (99 %%) and %d registrations %s; the node grew by %d MiB; the bodies were answered %v",
		len(took), took[len(took)*99/100].Round(time.Millisecond), len(writes), writes[len(writes)*99/100].Round(time.Millisecond), grown, answered)
}

// TestEndlessBodies: a hundred bodies without a length, of which none would end, are
// refused at their limit and cost no more memory than that.
func TestEndlessBodies(t *testing.T) {
	p := newCluster(t, 1)[0]
	p.start()
	p.waitReady("?require=leader")
	before, most := p.rss(), int64(0)
	chunk := "10000\r\n" + strings.Repeat(" ", 64<<10) + "\r\n"
	var wg sync.WaitGroup
	for n := range 100 {
		target := []string{"PUT /v1/services/web/instances/i", "POST /v1/batch/register", "POST /v1/heartbeats"}[n%3]
		c := heldOpen(t, p, 1, target+" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
		wg.Go(func() {
			for range 1 << 14 { // 1 GiB, were it taken
				if _, err := io.WriteString(c[0], chunk); err != nil {
					break
				}
			}
		})
		wg.Go(func() {
			if got := endings(t, c); got[413] != 1 {
				t.Errorf("%s: answered %v", target, got)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	waitFor(t, "the answers", func() bool {
		most = max(most, p.rss())
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	if grown := (most - before) >> 20; grown > roomFor(150) {
		t.Errorf("the node grew by %d MiB", grown)
	}
	status, text, err := request(t.Context(), &http.Client{}, "PUT", p.url+"/v1/services/web/instances/i", `{"address":"10.0.0.5","port":80}`)
	if err != nil || status != 201 {
		t.Errorf("a write after them: %d %s %v", status, text, err)
	}
	t.Logf("the node grew by %d MiB", (most-before)>>20)
}
