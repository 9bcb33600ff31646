package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// flood asks without pause, over many connections to every node, for what is dear to
// answer.
type flood struct {
	nodes  []*process
	client *http.Client
	pace   time.Duration // the least time between two requests of a connection

	served, shed, other atomic.Int64
	wrong               atomic.Pointer[string] // an answer that is neither
}

// floodPaths are in the proportion of their use: lists, the journal, a service.
var floodPaths = []string{"/v1/services", "/v1/events?limit=1000", "/v1/services?prefix=bulk", "/v1/services/bulk-3"}

func (f *flood) run(ctx context.Context, connections int) {
	var wg sync.WaitGroup
	for n := range connections {
		wg.Go(func() {
			turn := func() {}
			if f.pace > 0 {
				tick := time.NewTicker(f.pace)
				defer tick.Stop()
				turn = func() { <-tick.C }
			}
			for i := n; ctx.Err() == nil; i++ {
				f.ask(ctx, f.nodes[n%len(f.nodes)].url+floodPaths[i/len(f.nodes)%len(floodPaths)])
				turn()
			}
		})
	}
	wg.Wait()
}

func (f *flood) ask(ctx context.Context, url string) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		panic(err)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		f.other.Add(1)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // its end may be cut off by that of the flood
	switch {
	case resp.StatusCode == 200:
		f.served.Add(1)
	case resp.StatusCode == 503 && resp.Header.Get("Retry-After") != "":
		f.shed.Add(1)
	default:
		what := fmt.Sprintf("%s answered %d with %v", url, resp.StatusCode, resp.Header)
		f.wrong.Store(&what)
	}
}

// floodOrder is what a process that only floods is told, floodTally what it reports:
// in the process that measures it would be in the way of the measure.
type floodOrder struct {
	URLs        []string
	Connections int
	Pace, For   time.Duration
}

type floodTally struct {
	Served, Shed, Other int64
	Wrong               string
}

// actAsFlood makes the test binary carry out the floodOrder that it holds.
const actAsFlood = "MUSTER_TEST_ACT_AS_FLOOD"

func floodMain(order string) {
	var o floodOrder
	if err := json.Unmarshal([]byte(order), &o); err != nil {
		panic(err)
	}
	f := &flood{pace: o.Pace, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.Connections}}}
	for _, url := range o.URLs {
		f.nodes = append(f.nodes, &process{url: url})
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.For)
	defer cancel()
	f.run(ctx, o.Connections)
	tally := floodTally{Served: f.served.Load(), Shed: f.shed.Load(), Other: f.other.Load()}
	if wrong := f.wrong.Load(); wrong != nil {
		tally.Wrong = *wrong
	}
	_ = json.NewEncoder(os.Stdout).Encode(tally) // who reads it sees that it is missing
}

// floodFrom floods from a process of its own; what it returns waits for its end.
func floodFrom(t testing.TB, nodes []*process, connections int, pace, during time.Duration) func() floodTally {
	t.Helper()
	o := floodOrder{Connections: connections, Pace: pace, For: during}
	for _, p := range nodes {
		o.URLs = append(o.URLs, p.url)
	}
	order, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), actAsFlood+"="+string(order))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (tally floodTally) {
		t.Helper()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("flooding: %v", err)
		}
		if err := json.Unmarshal(out.Bytes(), &tally); err != nil {
			t.Fatalf("flooding: %v", err)
		}
		return tally
	}
}

// TestFloodOfReadsExpiresNobody: while all nodes are asked for far more lists than
// they can give, 500 instances with a TTL of 2 s stay registered.
func TestFloodOfReadsExpiresNobody(t *testing.T) {
	nodes := newCluster(t, 3)
	for _, p := range nodes {
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	beats := &fleet{t: t, nodes: nodes, client: &http.Client{}, ttl: 2 * time.Second, alive: map[string]bool{}}
	registerBulk(t, nodes[0], 1000)
	beats.register(500)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { beats.run(ctx) })
	defer wg.Wait()
	defer stop()

	const during = 6 * time.Second
	flooding, end := context.WithTimeout(ctx, during)
	defer end()
	took := make(chan []time.Duration, 1)
	wg.Go(func() { took <- beats.probe(flooding) })
	from := beats.rounds.Load()
	f := floodFrom(t, nodes, 180, 0, during)()
	answered := beats.rounds.Load() - from
	beats.settle("the flood")

	beats.checkEvents()
	for _, p := range nodes {
		status, text, err := request(t.Context(), beats.client, "GET", p.url+"/v1/services?prefix=fleet", "")
		if err != nil || status != 200 || strings.Count(text, `"routable":10`) != 50 {
			t.Errorf("%s has not all of the fleet: %d %v %.300s", p.url, status, err, text)
		}
	}
	if f.Served == 0 || f.Shed == 0 || answered == 0 {
		t.Errorf("no flood: %d answers, %d shed, %d batches of heartbeats", f.Served, f.Shed, answered)
	}
	if f.Wrong != "" {
		t.Error(f.Wrong)
	}
	all := <-took
	slices.Sort(all)
	if len(all) > 0 {
		t.Logf("%d lists and reads served, %d shed, %d failed; %d single heartbeats took %s (median) and %s (99 %%)", f.Served, f.Shed, f.Other,
			len(all), all[len(all)/2].Round(time.Millisecond), all[len(all)*99/100].Round(time.Millisecond))
	}
}

// registerBulk registers services without leases, so that a list of all is long.
func registerBulk(t testing.TB, p *process, count int) {
	t.Helper()
	var items []string
	for n := range count {
		items = append(items, fmt.Sprintf(`{"service":"bulk-%d","id":"one","address":"10.2.0.1","port":80,"ttl":"none"}`, n))
		if len(items) == 500 || n == count-1 {
			status, body, err := request(t.Context(), http.DefaultClient, "POST", p.url+"/v1/batch/register", `{"instances":[`+strings.Join(items, ",")+`]}`)
			if err != nil || status != 200 {
				t.Fatalf("%d %.300s %v", status, body, err)
			}
			items = nil
		}
	}
}

// probe sends heartbeats of one instance, one after the other, and returns how long
// each took to be answered.
func (f *fleet) probe(ctx context.Context) (took []time.Duration) {
	for n := 0; ctx.Err() == nil; n++ {
		start := time.Now()
		status, body, err := request(ctx, f.client, "PUT", f.nodes[n%len(f.nodes)].url+"/v1/services/fleet-7/instances/i-70/heartbeat", "")
		switch {
		case ctx.Err() != nil:
		case err != nil || status != 200:
			f.t.Errorf("a heartbeat in the flood: %d %s %v", status, body, err)
		default:
			took = append(took, time.Since(start))
		}
	}
	return took
}

// TestOutOfDescriptors: a node that may open few files turns connections away and
// goes on: it writes to its disk, answers those that it has taken, and takes new ones
// when there is room.
func TestOutOfDescriptors(t *testing.T) {
	prlimit, err := exec.LookPath("prlimit")
	if err != nil {
		t.Skip("there is no prlimit here")
	}
	p := newCluster(t, 1)[0]
	p.within = []string{prlimit, "--nofile=256:256"}
	p.start()
	p.waitReady("?require=leader")
	kept := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer kept.CloseIdleConnections()
	write := func(n int) {
		t.Helper()
		status, body, err := request(t.Context(), kept, "PUT", p.url+"/v1/services/web/instances/i-"+strconv.Itoa(n), `{"address":"10.0.0.5","port":80}`)
		if err != nil || status != 201 {
			t.Fatalf("write %d: %d %s %v", n, status, body, err)
		}
	}
	write(0)
	var open []net.Conn
	away := 0
	for range 400 {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	for _, c := range open[300:] {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if answer, _ := io.ReadAll(c); strings.Contains(string(answer), `"overloaded"`) {
			away++
		}
	}
	if away != 100 {
		t.Errorf("%d of the last 100 connections were told that they are too many", away)
	}
	for n := range 20 {
		write(n + 1)
	}
	for _, c := range open {
		c.Close()
	}
	waitFor(t, "a new connection to be taken", func() bool {
		fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		status, _, err := request(t.Context(), fresh, "GET", p.url+"/livez", "")
		return err == nil && status == 200
	})
}
