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
	"github.com/muster-registry/muster/client"
)

// keeper starts muster register --keep of an instance, as a process of its own.
func keeper(t *testing.T, registry, id string, port int) *process {
	t.Helper()
	p := &process{t: t, url: "muster register --keep", args: []string{
		"register", "web", "--id", id, "--address", "10.0.0.5", "--port", fmt.Sprint(port), "--ttl", "2s", "--keep", "--addr", registry}}
	p.start()
	t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGTERM)
		p.wait()
		if t.Failed() {
			t.Logf("%v said:\n%s", p.args, p.log)
		}
	})
	return p
}

// service reads service web.
func service(t *testing.T, node *process) *muster.View {
	t.Helper()
	status, text, err := request(t.Context(), &http.Client{Timeout: 10 * time.Second}, "GET", node.url+"/v1/services/web?consistency=linearizable", "")
	v := new(muster.View)
	if err == nil && status == http.StatusOK {
		err = json.Unmarshal([]byte(text), v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestPausedLongerThanItsTTL: a process that stood still while its lease ran out
// registers again when it goes on, as itself; one whose instance somebody else has
// taken over meanwhile is fenced, ends, and takes nothing along.
func TestPausedLongerThanItsTTL(t *testing.T) {
	node := newCluster(t, 1)[0]
	node.start()
	node.waitReady("?require=leader")
	older := keeper(t, node.url, "web-1", 81)
	there := func(port int) func() bool {
		return func() bool {
			v := service(t, node)
			return len(v.Instances) == 1 && v.Instances[0].Port == port
		}
	}
	waitFor(t, "it is registered", there(81))
	first := service(t, node).Instances[0].Incarnation

	older.signal(syscall.SIGSTOP)
	waitFor(t, "its lease runs out", func() bool { return service(t, node).EmptyReason == muster.EmptyExpired })
	older.signal(syscall.SIGCONT)
	waitFor(t, "it is registered again", there(81))
	if again := service(t, node).Instances[0].Incarnation; again != first {
		t.Errorf("it came back as incarnation %d, and was %d", again, first)
	}

	older.signal(syscall.SIGSTOP)
	newer := keeper(t, node.url, "web-1", 82)
	waitFor(t, "the other one has the instance", there(82))
	older.signal(syscall.SIGCONT)
	if code := older.wait(); code != exitError || !strings.Contains(older.log.String(), string(muster.CodeFenced)) {
		t.Errorf("the older one ended with %d\n%s", code, older.log)
	}
	waitFor(t, "the newer one is there after its end", there(82))
	newer.signal(syscall.SIGTERM)
	if code := newer.wait(); code != exitOK {
		t.Errorf("the newer one ended with %d", code)
	}
	if v := service(t, node); v.EmptyReason != muster.EmptyDeregistered {
		t.Errorf("after both: %+v", v)
	}
}

// TestClientThroughKilledAndSilentNodes: calls of the SDK go on, without one that
// fails, while the leader is killed in the middle of them and while one node after the
// other accepts connections and answers nothing, on those it has as on new ones.
func TestClientThroughKilledAndSilentNodes(t *testing.T) {
	nodes := newCluster(t, 3)
	var addrs []string
	for _, p := range nodes {
		p.start()
		addrs = append(addrs, p.url)
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	c, err := client.New(client.Config{Addrs: addrs, AttemptTimeout: time.Second, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Register(t.Context(), muster.Instance{Service: "kept", ID: "k", Address: "10.0.0.1", Port: 80, TTL: muster.TTL(10 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var calling sync.WaitGroup
	var done [4]atomic.Int64 // of each caller, and the last number it wrote
	for n := range done {
		calling.Go(func() {
			id := fmt.Sprintf("web-%d", n)
			for ctx.Err() == nil {
				next := done[n].Load() + 1
				i := muster.Instance{Service: "web", ID: id, Address: "10.0.0.1", Port: 80, TTL: muster.NoTTL, Meta: map[string]string{"n": fmt.Sprint(next)}}
				// The context is not the loop's: what was begun is to succeed.
				if _, err := c.PutInstance(t.Context(), &i); err != nil {
					t.Errorf("write %d of %s: %v", next, id, err)
					return
				}
				got, err := c.Instance(t.Context(), "web", id)
				if err != nil || got.Meta["n"] != fmt.Sprint(next) {
					t.Errorf("reading write %d of %s: %+v %v", next, id, got, err)
					return
				}
				done[n].Store(next)
			}
		})
	}
	more := func(what string) {
		t.Helper()
		var before [len(done)]int64
		for n := range done {
			before[n] = done[n].Load()
		}
		waitFor(t, what, func() bool {
			for n := range done {
				if done[n].Load() < before[n]+20 {
					return t.Failed()
				}
			}
			return true
		})
	}
	more("calls run")
	leader := leaderOf(t, nodes)
	leader.signal(syscall.SIGKILL)
	leader.wait()
	more("calls go on after the leader was killed")
	leader.start()
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	for _, p := range nodes {
		p.signal(syscall.SIGSTOP)
		more("calls go on beside " + p.url + ", which is silent")
		p.signal(syscall.SIGCONT)
		for _, p := range nodes {
			p.waitReady("?require=leader")
		}
	}
	stop()
	calling.Wait()
	if e, err := c.Events(t.Context(), muster.EventQuery{Service: "kept"}); err != nil || len(e.Events) != 1 {
		t.Errorf("the session was registered %+v %v", e, err)
	}
	if st, err := s.State(); st != client.StateRegistered {
		t.Errorf("the session is %s %v", st, err)
	}
}
