package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

// fleet is a host whose many instances beat through whichever node answers.
type fleet struct {
	t      testing.TB
	nodes  []*process
	client *http.Client
	ttl    time.Duration

	mu    sync.Mutex
	alive map[string]bool // guarded by mu: the instances that beat

	rounds  atomic.Int64 // batches that were answered
	unknown atomic.Int64 // beats answered "register again" for an instance that beat
}

const fleetTTL = 3 * time.Second

// register puts count instances with a TTL into services of ten.
func (f *fleet) register(count int) {
	f.t.Helper()
	var items []string
	for n := range count {
		id := fmt.Sprintf("i-%d", n)
		items = append(items, fmt.Sprintf(`{"service":"fleet-%d","id":%q,"address":"10.1.%d.%d","port":80,"ttl":%q}`, n/10, id, n/250, n%250, f.ttl))
		f.alive[fmt.Sprintf("fleet-%d/%s", n/10, id)] = true
		if len(items) == 250 || n == count-1 {
			status, body, err := request(f.t.Context(), f.client, "POST", f.nodes[0].url+"/v1/batch/register", `{"instances":[`+strings.Join(items, ",")+`]}`)
			if err != nil || status != 200 {
				f.t.Fatalf("%d %s %v", status, body, err)
			}
			items = nil
		}
	}
}

// beat sends all heartbeats in one batch, to the next node where one fails.
func (f *fleet) beat(ctx context.Context, first int) {
	f.mu.Lock()
	var beats []muster.InstanceBeat
	for name := range f.alive {
		service, id, _ := strings.Cut(name, "/")
		beats = append(beats, muster.InstanceBeat{Service: service, ID: id})
	}
	f.mu.Unlock()
	body, err := json.Marshal(muster.Heartbeats{Instances: beats})
	if err != nil {
		f.t.Error(err)
		return
	}
	for n := range f.nodes {
		node := f.nodes[(first+n)%len(f.nodes)]
		rctx, cancel := context.WithTimeout(ctx, time.Second)
		status, text, err := request(rctx, f.client, "POST", node.url+"/v1/heartbeats?timeout=900ms", string(body))
		cancel()
		if err != nil || status != 200 {
			continue
		}
		var b muster.Beats
		if err := json.Unmarshal([]byte(text), &b); err != nil {
			f.t.Error(err)
			return
		}
		f.rounds.Add(1)
		f.mu.Lock()
		for _, name := range b.Unknown {
			if f.alive[strings.TrimPrefix(name, "default/")] {
				f.unknown.Add(1)
				f.t.Errorf("%s was beating and is answered as unknown by %s", name, node.url)
				delete(f.alive, strings.TrimPrefix(name, "default/"))
			}
		}
		f.mu.Unlock()
		return
	}
}

// run beats six times in a TTL until ctx ends.
func (f *fleet) run(ctx context.Context) {
	tick := time.NewTicker(f.ttl / 6)
	defer tick.Stop()
	for n := 0; ; n++ {
		f.beat(ctx, n)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// settle waits until the fleet's heartbeats are answered again, and for one more
// TTL of them, in which whatever was wrongly forgotten would show.
func (f *fleet) settle(what string) {
	f.t.Helper()
	from := f.rounds.Load()
	waitFor(f.t, "heartbeats to be answered after "+what, func() bool { return f.rounds.Load() > from })
	until := time.Now().Add(f.ttl + time.Second)
	waitFor(f.t, "a TTL of heartbeats after "+what, func() bool { return time.Now().After(until) })
}

// TestNobodyAliveIsDropped keeps 500 instances of three processes beating through
// every fault a night may bring: none of them may expire. Those that stop beating
// must.
func TestNobodyAliveIsDropped(t *testing.T) {
	nodes := newCluster(t, 3)
	for _, p := range nodes {
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	f := &fleet{t: t, nodes: nodes, client: &http.Client{}, ttl: fleetTTL, alive: map[string]bool{}}
	f.register(500)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { f.run(ctx) })
	defer wg.Wait()
	defer stop()
	f.settle("the start")

	leader := leaderOf(t, nodes)
	leader.signal(syscall.SIGKILL)
	leader.wait()
	f.settle("the leader was killed")
	leader.start()
	leader.waitReady("?require=leader")

	leader = leaderOf(t, nodes)
	leader.signal(syscall.SIGSTOP)
	paused := time.Now().Add(2 * fleetTTL)
	waitFor(t, "the leader to be paused for twice the TTL", func() bool { return time.Now().After(paused) })
	leader.signal(syscall.SIGCONT)
	f.settle("the leader was paused")

	for _, p := range nodes {
		p.signal(syscall.SIGSTOP)
	}
	paused = time.Now().Add(2 * fleetTTL)
	waitFor(t, "all nodes to be paused for twice the TTL", func() bool { return time.Now().After(paused) })
	for _, p := range nodes {
		p.signal(syscall.SIGCONT)
	}
	f.settle("all nodes were paused")

	for _, p := range nodes {
		p.signal(syscall.SIGKILL)
	}
	for _, p := range nodes {
		p.wait()
	}
	for _, p := range nodes {
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	f.settle("all nodes were killed")

	f.checkEvents()
	f.checkDead()
	t.Logf("%d batches of heartbeats answered, %d instances wrongly forgotten", f.rounds.Load(), f.unknown.Load())
}

// checkEvents looks into the journal: nothing may have expired so far.
func (f *fleet) checkEvents() {
	f.t.Helper()
	status, text, err := request(f.t.Context(), f.client, "GET", f.nodes[len(f.nodes)-1].url+"/v1/events?limit=1000", "")
	if err != nil || status != 200 {
		f.t.Fatalf("%d %s %v", status, text, err)
	}
	if strings.Contains(text, `"expired"`) {
		f.t.Errorf("somebody expired: %.2000s", text)
	}
}

// checkDead stops the heartbeats of 40 of the 500, few enough not to be a mass
// loss, and waits until exactly those are gone.
func (f *fleet) checkDead() {
	f.t.Helper()
	f.mu.Lock()
	dead := map[string]bool{}
	for n := range 40 {
		name := fmt.Sprintf("fleet-%d/i-%d", n, n*10)
		delete(f.alive, name)
		dead[name] = true
	}
	f.mu.Unlock()
	gone := func(name string) bool {
		service, id, _ := strings.Cut(name, "/")
		status, _, err := request(f.t.Context(), f.client, "GET", f.nodes[2].url+"/v1/services/"+service+"/instances/"+id+"?consistency=linearizable", "")
		return err == nil && status == 404
	}
	waitFor(f.t, "the dead to be gone", func() bool {
		for name := range dead {
			if !gone(name) {
				return false
			}
		}
		return true
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.alive {
		if gone(name) {
			f.t.Errorf("%s beats and is gone", name)
		}
	}
}
