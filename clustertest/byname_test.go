package clustertest_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/clustertest"
)

// backend is a process of a service: a server that keeps itself registered.
type backend struct {
	t       *testing.T
	server  *http.Server
	session *client.Session
	sdk     *client.Client
	stop    context.CancelFunc
	done    chan struct{}
}

// startBackend serves and waits until it is registered.
func startBackend(t *testing.T, c *clustertest.Cluster, id string) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{t: t, sdk: newSDK(t, c), done: make(chan struct{}), server: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s", id, body)
	})}}
	go func() {
		defer close(b.done)
		_ = b.server.Serve(l) // ends with Close and Shutdown
	}()
	ctx, stop := context.WithCancel(t.Context())
	b.stop = stop
	at := l.Addr().(*net.TCPAddr)
	b.session, err = b.sdk.Register(ctx, muster.Instance{
		Service: "web", ID: id, Address: "127.0.0.1", Port: at.Port, TTL: muster.TTL(3 * time.Second),
	}, client.Drain(250*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	wait, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()
	if err := b.session.Await(wait); err != nil {
		t.Fatalf("registering %s: %v", id, err)
	}
	t.Cleanup(b.kill)
	return b
}

// leave ends it as a deployment does: out of traffic, deregistered, served to the end.
func (b *backend) leave() {
	b.stop()
	<-b.session.Done()
	ctx, cancel := context.WithTimeout(b.t.Context(), clustertest.Patience)
	defer cancel()
	if err := b.server.Shutdown(ctx); err != nil {
		b.t.Errorf("shutting down: %v", err)
	}
	<-b.done
	b.sdk.Close()
}

// kill ends the server in the middle of what it does, with nothing said to anybody:
// its registration is left to its lease.
func (b *backend) kill() {
	_ = b.server.Close()
	<-b.done
}

// callers call service web until they are told to stop, and count.
type callers struct {
	ok, failed atomic.Int64
	first      atomic.Pointer[error]
	stop       chan struct{}
	all        sync.WaitGroup
}

func startCallers(t *testing.T, h *http.Client, methods ...string) *callers {
	c := &callers{stop: make(chan struct{})}
	for _, method := range methods {
		c.run(func() error { return callOnce(t.Context(), h, method) })
	}
	return c
}

// startCalling calls again and again, n at the same time.
func startCalling(call func() error, n int) *callers {
	c := &callers{stop: make(chan struct{})}
	for range n {
		c.run(call)
	}
	return c
}

func (c *callers) run(call func() error) {
	c.all.Go(func() {
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-c.stop:
				return
			case <-pace.C:
			}
			if err := call(); err != nil {
				c.failed.Add(1)
				c.first.CompareAndSwap(nil, &err)
			} else {
				c.ok.Add(1)
			}
		}
	})
}

func callOnce(ctx context.Context, h *http.Client, method string) error {
	ctx, cancel := context.WithTimeout(ctx, clustertest.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://web/x", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	resp, err := h.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.HasSuffix(string(b), " hello")) {
		err = fmt.Errorf("answered %d %q", resp.StatusCode, b)
	}
	return err
}

// end stops the callers, none of whose calls may have failed.
func (c *callers) end(t *testing.T) {
	t.Helper()
	close(c.stop)
	c.all.Wait()
	t.Logf("%d calls, %d failed", c.ok.Load()+c.failed.Load(), c.failed.Load())
	if c.failed.Load() > 0 {
		t.Errorf("%d of %d calls failed, the first: %v", c.failed.Load(), c.ok.Load()+c.failed.Load(), *c.first.Load())
	}
	if c.ok.Load() < 100 {
		t.Errorf("only %d calls were made", c.ok.Load())
	}
}

// rollingRounds is how often the tests of rolling restarts replace all servers:
// go test ./clustertest -run RollingRestarts -args -rolling-rounds=20
var rollingRounds = flag.Int("rolling-rounds", 2, "how often the tests of rolling restarts replace all servers")

// TestCallsThroughRollingRestarts: three servers are replaced one after the other,
// again and again, and no call fails.
func TestCallsThroughRollingRestarts(t *testing.T) {
	c := clustertest.Start(t, 3)
	var fleet [3]*backend
	for n := range fleet {
		fleet[n] = startBackend(t, c, fmt.Sprintf("web-%d", n))
	}
	callers := startCallers(t, newSDK(t, c).HTTPClient(), "GET", "POST", "PUT")
	for range *rollingRounds {
		for n := range fleet {
			fleet[n].leave()
			fleet[n] = startBackend(t, c, fmt.Sprintf("web-%d", n))
		}
	}
	callers.end(t)
}

// TestCallsThroughCrashes: servers, and the registry's leader, crash in the middle of
// calls that are safe to repeat, and none fails.
func TestCallsThroughCrashes(t *testing.T) {
	c := clustertest.Start(t, 3)
	var fleet [3]*backend
	for n := range fleet {
		fleet[n] = startBackend(t, c, fmt.Sprintf("web-%d", n))
	}
	sdk := newSDK(t, c)
	callers := startCallers(t, sdk.HTTPClient(), "GET", "PUT")
	c.Wait("calls to run", func() bool { return callers.ok.Load() > 200 })
	fleet[0].kill()
	leader := c.Leader()
	leader.Kill()
	before := callers.ok.Load()
	c.Wait("calls to go on", func() bool { return callers.ok.Load() > before+500 })
	fleet[1].kill()
	leader.Start()
	before = callers.ok.Load()
	c.Wait("calls to go on", func() bool { return callers.ok.Load() > before+500 })
	callers.end(t)
}
