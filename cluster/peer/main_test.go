package peer_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/muster-registry/muster/cluster/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a running port and what stops it.
type node struct {
	*peer.Port
	stop func() // idempotent; returns when Run has
}

// hello returns the introduction of a node of the cluster "test".
func hello(id, addr string) peer.Hello {
	return peer.Hello{Cluster: "test", NodeID: id, Boot: 1, Nonce: 42, Version: "v0", Addr: addr}
}

// newPort binds a port on loopback. Its Self follows from id unless cfg has one.
func newPort(t testing.TB, id string, cfg peer.Config) *peer.Port {
	t.Helper()
	if cfg.Bind == "" && cfg.Listener == nil {
		cfg.Bind = "127.0.0.1:0"
	}
	var p *peer.Port
	if cfg.Self == nil {
		cfg.Self = func() peer.Hello { return hello(id, p.Advertised()) }
	}
	p, err := peer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// serve runs a port until the test ends or stop is called.
func serve(t testing.TB, p *peer.Port) *node {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	n := &node{Port: p, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run does not return")
		}
	}}
	t.Cleanup(n.stop)
	return n
}

// pair returns a caller and a serving port with an echo method and more.
func pair(t testing.TB, callerCfg, serverCfg peer.Config, handlers map[string]peer.Handler) (caller, server *node) {
	t.Helper()
	s := newPort(t, "server", serverCfg)
	s.Handle("echo", echo)
	for method, fn := range handlers {
		s.Handle(method, fn)
	}
	c := newPort(t, "caller", callerCfg)
	for _, method := range []string{"echo", "missing"} {
		c.Handle(method, echo)
	}
	return serve(t, c), serve(t, s)
}

func echo(_ context.Context, _ peer.Hello, body []byte) ([]byte, error) { return body, nil }

func withTimeout(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantRefused(t *testing.T, err error, code string, byPeer bool) {
	t.Helper()
	r, ok := errors.AsType[*peer.RefusedError](err)
	if !ok || r.Code != code || r.ByPeer != byPeer {
		t.Fatalf("got error %v, want a refusal %q, by the peer: %v", err, code, byPeer)
	}
}

// closedAddr returns an address at which nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// until waits for cond.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
