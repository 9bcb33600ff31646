package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

// writer registers instances through every node in turn and remembers what was
// acknowledged.
type writer struct {
	nodes  []*process
	client *http.Client

	mu    sync.Mutex
	acked []string // guarded by mu
	tries int      // guarded by mu
}

func (w *writer) run(ctx context.Context, stream int) {
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("s%d-%d", stream, n)
		body := fmt.Sprintf(`{"address":"10.0.%d.1","port":%d,"ttl":"none"}`, stream, 1+n%65535)
		node := w.nodes[n%len(w.nodes)]
		status, _, err := request(ctx, w.client, "PUT", node.url+"/v1/services/web"+fmt.Sprint(n%7)+"/instances/"+id, body)
		w.mu.Lock()
		w.tries++
		if err == nil && (status == 200 || status == 201) {
			w.acked = append(w.acked, fmt.Sprintf("web%d/%s", n%7, id))
		}
		w.mu.Unlock()
		if err != nil {
			// The node is dead for now: do not spin on it.
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// TestKillNineLosesNothing kills the leader of three processes five times under
// writers. What was acknowledged must be on every node afterwards, and the nodes
// must agree.
func TestKillNineLosesNothing(t *testing.T) {
	nodes := newCluster(t, 3)
	for _, p := range nodes {
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	w := &writer{nodes: nodes, client: &http.Client{Timeout: 8 * time.Second}}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for s := range 4 {
		wg.Go(func() { w.run(ctx, s) })
	}
	for range 5 {
		before := w.count()
		waitFor(t, "20 more writes", func() bool { return w.count() >= before+20 })
		leader := leaderOf(t, nodes)
		leader.signal(syscall.SIGKILL)
		leader.wait()
		before = w.count()
		waitFor(t, "writes without the old leader", func() bool { return w.count() >= before+20 })
		leader.start()
		leader.waitReady("")
	}
	stop()
	wg.Wait()

	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	// A write whose writer was stopped may still be on its way: the nodes agree as
	// soon as it has landed.
	var first map[string]*muster.View
	waitFor(t, "the nodes to agree", func() bool {
		first = readAll(t, w.client, nodes[0])
		want := mustJSON(t, first)
		for _, p := range nodes[1:] {
			if mustJSON(t, readAll(t, w.client, p)) != want {
				return false
			}
		}
		return true
	})
	checkAcked(t, w, first)
	t.Logf("%d writes acknowledged of %d tried, 5 leaders killed, 0 lost", len(w.acked), w.tries)
}

func checkAcked(t *testing.T, w *writer, views map[string]*muster.View) {
	t.Helper()
	have := map[string]bool{}
	for name, v := range views {
		for _, i := range v.Instances {
			have[name+"/"+i.ID] = true
		}
	}
	lost := 0
	for _, key := range w.acked {
		if !have[key] {
			lost++
			t.Errorf("%s was acknowledged and is lost", key)
		}
	}
	if len(w.acked) < 200 {
		t.Errorf("only %d writes were acknowledged: too few to prove anything", len(w.acked))
	}
}

// readAll reads every service of a node, linearizably.
func readAll(t *testing.T, client *http.Client, p *process) map[string]*muster.View {
	t.Helper()
	views := map[string]*muster.View{}
	for n := range 7 {
		name := fmt.Sprintf("web%d", n)
		status, body, err := request(t.Context(), client, "GET", p.url+"/v1/services/"+name+"?consistency=linearizable", "")
		if err != nil || status != 200 {
			t.Fatalf("reading %s of %s: %d %s %v", name, p.url, status, body, err)
		}
		v := new(muster.View)
		if err := json.Unmarshal([]byte(body), v); err != nil {
			t.Fatal(err)
		}
		views[name] = v
	}
	return views
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// waitFor waits until cond holds.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
		<-tick.C
	}
}
