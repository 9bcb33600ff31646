package peer_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/peer"
)

func TestCall(t *testing.T) {
	var from peer.Hello
	caller, server := pair(t, peer.Config{}, peer.Config{}, map[string]peer.Handler{
		"who": func(_ context.Context, h peer.Hello, _ []byte) ([]byte, error) {
			from = h
			return nil, nil
		},
	})
	for _, body := range [][]byte{nil, []byte("hello"), bytes.Repeat([]byte("x"), 3<<20), make([]byte, peer.MaxBody)} {
		for _, addr := range []string{server.Advertised(), peer.At("server", server.Advertised())} {
			got, err := caller.Call(t.Context(), addr, "echo", body)
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("echo of %d bytes by %s: %d bytes, %v", len(body), addr, len(got), err)
			}
		}
	}
	if _, err := caller.Call(t.Context(), server.Advertised(), "who", nil); err != nil {
		t.Fatal(err)
	}
	if want := hello("caller", caller.Advertised()); from != want {
		t.Errorf("the handler was called by %+v, want %+v", from, want)
	}
}

func TestCallsShareOneConnection(t *testing.T) {
	caller, server := pair(t, peer.Config{}, peer.Config{}, nil)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if _, err := caller.Call(t.Context(), server.Advertised(), "echo", []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := server.CloseConns(func(h peer.Hello, kind peer.Kind) bool { return h.NodeID == "caller" && kind == peer.KindRPC })
	if n != 1 {
		t.Errorf("200 calls at once took %d connections, want 1", n)
	}
	// The closed connection is replaced without the caller noticing.
	until(t, "the closed connection is noticed", func() bool {
		_, err := caller.Call(t.Context(), server.Advertised(), "echo", nil)
		return err == nil
	})
}

func TestErrorsOfHandlersTravel(t *testing.T) {
	full := &muster.Error{
		Code: muster.CodeNoLeader, Detail: "no leader ä\n", Hint: "wait", Leader: "10.0.0.1:7400", RetryAfter: 1500 * time.Millisecond,
		Fields: []muster.FieldError{{Pointer: "/a", Detail: "b"}, {Pointer: "?c", Detail: "d"}},
	}
	var logs bytes.Buffer
	reg := prometheus.NewRegistry()
	caller, server := pair(t, peer.Config{}, peer.Config{Logger: slog.New(slog.NewTextHandler(&logs, nil)), Registerer: reg}, map[string]peer.Handler{
		"full": func(context.Context, peer.Hello, []byte) ([]byte, error) {
			return nil, full.WithCause(errors.New("secret"))
		},
		"plain":  func(context.Context, peer.Hello, []byte) ([]byte, error) { return nil, errors.New("secret") },
		"panics": func(context.Context, peer.Hello, []byte) ([]byte, error) { panic("secret") },
		"large": func(context.Context, peer.Hello, []byte) ([]byte, error) {
			return nil, muster.Errorf(muster.CodeFenced, "%s", strings.Repeat("x", 1<<20))
		},
	})
	call := func(method string) *muster.Error {
		t.Helper()
		_, err := caller.Call(t.Context(), server.Advertised(), method, nil)
		e, ok := errors.AsType[*muster.Error](err)
		if !ok || errors.Is(err, peer.ErrNotSent) || strings.Contains(err.Error(), "secret") {
			t.Fatalf("%s: got error %v, want a *muster.Error of the handler without its cause", method, err)
		}
		return e
	}
	if got := call("full"); !reflect.DeepEqual(got, full) {
		t.Errorf("got error %#v, want %#v", got, full)
	}
	for method, want := range map[string]muster.Code{"plain": muster.CodeInternal, "panics": muster.CodeInternal, "large": muster.CodeFenced} {
		if got := call(method); got.Code != want {
			t.Errorf("%s: got code %s, want %s", method, got.Code, want)
		}
	}
	server.stop()
	if n := strings.Count(logs.String(), "secret"); n < 2 {
		t.Errorf("the causes of plain and panics were not logged: %s", logs.String())
	}
	if got := counterValue(t, reg, "muster_peer_handler_panics_total", nil); got != 1 {
		t.Errorf("%v panics counted, want 1", got)
	}
}

func TestTheCallersPatienceReachesTheHandler(t *testing.T) {
	deadlines, ended := make(chan time.Duration, 1), make(chan error, 1)
	caller, server := pair(t, peer.Config{}, peer.Config{}, map[string]peer.Handler{
		"wait": func(ctx context.Context, _ peer.Hello, body []byte) ([]byte, error) {
			left := time.Duration(-1)
			if d, ok := ctx.Deadline(); ok {
				left = time.Until(d)
			}
			deadlines <- left
			if len(body) > 0 {
				return nil, nil
			}
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return nil, ctx.Err()
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	called := make(chan error, 1)
	go func() {
		_, err := caller.Call(ctx, server.Advertised(), "wait", nil)
		called <- err
	}()
	if left := <-deadlines; left < 20*time.Second || left > 30*time.Second {
		t.Errorf("the handler has %s, want a little less than 30s", left)
	}
	cancel()
	<-ended
	if err := <-called; !errors.Is(err, context.Canceled) || errors.Is(err, peer.ErrNotSent) {
		t.Errorf("got error %v, want a cancelled call that may have been carried out", err)
	}
	if _, err := caller.Call(t.Context(), server.Advertised(), "wait", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if left := <-deadlines; left != -1 {
		t.Errorf("a call without deadline gives the handler %s", left)
	}
}

func TestNotSent(t *testing.T) {
	refuse := func(code string) func(peer.Hello, peer.Kind) error {
		return func(peer.Hello, peer.Kind) error { return &peer.RefusedError{Code: code, Reason: "because"} }
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name           string
		caller, server peer.Config
		addr           string // default: the server's
		id             string
		method         string
		body           []byte
		ctx            context.Context
		check          func(t *testing.T, err error)
	}{
		{name: "nobody listens", addr: closedAddr(t), check: func(t *testing.T, err error) {
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %v, want ECONNREFUSED", err)
			}
		}},
		{name: "refused by the peer", server: peer.Config{Admit: refuse(peer.CodeWrongCluster)},
			check: func(t *testing.T, err error) { wantRefused(t, err, peer.CodeWrongCluster, true) }},
		{name: "refused by us", caller: peer.Config{Admit: refuse(peer.CodeOldCopy)},
			check: func(t *testing.T, err error) { wantRefused(t, err, peer.CodeOldCopy, false) }},
		{name: "refused for another reason", server: peer.Config{Admit: func(peer.Hello, peer.Kind) error { return errors.New("no\nway") }},
			check: func(t *testing.T, err error) {
				wantRefused(t, err, peer.CodeRefused, true)
				if !strings.Contains(err.Error(), "no?way") {
					t.Errorf("got %v, want the reason without its line feed", err)
				}
			}},
		{name: "another node is there", id: "someone",
			check: func(t *testing.T, err error) { wantRefused(t, err, peer.CodeWrongNode, true) }},
		{name: "unknown method", method: "missing", check: func(t *testing.T, err error) {
			if !errors.Is(err, peer.ErrUnknownMethod) {
				t.Errorf("got %v, want ErrUnknownMethod", err)
			}
		}},
		{name: "body too large", body: make([]byte, peer.MaxBody+1), check: func(t *testing.T, err error) {
			if !errors.Is(err, muster.CodeBodyTooLarge) {
				t.Errorf("got %v, want body_too_large", err)
			}
		}},
		{name: "out of time", ctx: done, check: func(t *testing.T, err error) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
		}},
		{name: "no address", addr: "nonsense", check: func(*testing.T, error) {}},
		{name: "our hello is unfit", caller: peer.Config{Self: func() peer.Hello { return peer.Hello{} }}, check: func(*testing.T, error) {}},
		{name: "the peer's hello is unfit", server: peer.Config{Self: func() peer.Hello { return peer.Hello{} }}, check: func(*testing.T, error) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			caller, server := pair(t, tt.caller, tt.server, nil)
			addr, method, ctx := tt.addr, tt.method, tt.ctx
			if addr == "" {
				addr = server.Advertised()
			}
			if method == "" {
				method = "echo"
			}
			if ctx == nil {
				ctx = t.Context()
			}
			_, err := caller.Call(ctx, peer.At(tt.id, addr), method, tt.body)
			if !errors.Is(err, peer.ErrNotSent) {
				t.Fatalf("got error %v, want ErrNotSent", err)
			}
			tt.check(t, err)
		})
	}
}

func TestSentWithoutAnswer(t *testing.T) {
	began := make(chan struct{})
	handlers := map[string]peer.Handler{"wait": func(ctx context.Context, _ peer.Hello, _ []byte) ([]byte, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	end := map[string]func(caller, server *node, cancel func()){
		"the caller loses patience":  func(_, _ *node, cancel func()) { cancel() },
		"the connection is closed":   func(_, server *node, _ func()) { server.CloseConns(func(peer.Hello, peer.Kind) bool { return true }) },
		"the caller's port is ended": func(caller, _ *node, _ func()) { caller.stop() },
	}
	for name, end := range end {
		t.Run(name, func(t *testing.T) {
			caller, server := pair(t, peer.Config{}, peer.Config{}, handlers)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			called := make(chan error, 1)
			go func() {
				_, err := caller.Call(ctx, server.Advertised(), "wait", []byte("x"))
				called <- err
			}()
			<-began
			end(caller, server, cancel)
			if err := <-called; err == nil || errors.Is(err, peer.ErrNotSent) {
				t.Errorf("got error %v, want one that does not say that nothing was sent", err)
			}
		})
	}
}

func TestAnEndingPort(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	caller, server := pair(t, peer.Config{}, peer.Config{}, map[string]peer.Handler{
		"last": func(ctx context.Context, _ peer.Hello, _ []byte) ([]byte, error) {
			close(began)
			<-ctx.Done()
			<-release
			return []byte("answered"), nil
		},
	})
	answers := make(chan string, 1)
	go func() {
		b, err := caller.Call(t.Context(), server.Advertised(), "last", nil)
		if err != nil {
			b = []byte(err.Error())
		}
		answers <- string(b)
	}()
	<-began
	stopped := make(chan struct{})
	go func() { server.stop(); close(stopped) }()
	// While the last handler is waited for, a new call is turned away.
	until(t, "new calls are turned away", func() bool {
		_, err := caller.Call(t.Context(), server.Advertised(), "echo", nil)
		return errors.Is(err, muster.CodeShuttingDown) && errors.Is(err, peer.ErrNotSent)
	})
	close(release)
	<-stopped
	if got := <-answers; got != "answered" {
		t.Errorf("the last answer is %q", got)
	}
	if _, err := caller.Call(t.Context(), server.Advertised(), "echo", nil); !errors.Is(err, peer.ErrNotSent) {
		t.Errorf("a call to an ended port: %v, want ErrNotSent", err)
	}
	caller.stop()
	if _, err := caller.Call(t.Context(), server.Advertised(), "echo", nil); !errors.Is(err, peer.ErrNotSent) {
		t.Errorf("a call from an ended port: %v, want ErrNotSent", err)
	}
}

func TestMetricsOfCalls(t *testing.T) {
	callerReg, serverReg := prometheus.NewPedanticRegistry(), prometheus.NewPedanticRegistry()
	caller, server := pair(t, peer.Config{Registerer: callerReg}, peer.Config{Registerer: serverReg}, nil)
	for range 3 {
		if _, err := caller.Call(t.Context(), server.Advertised(), "echo", []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = caller.Call(t.Context(), server.Advertised(), "missing", nil)
	_, _ = caller.Call(t.Context(), server.Advertised(), "never-heard-of", nil)
	for _, tt := range []struct {
		reg    *prometheus.Registry
		name   string
		labels map[string]string
		want   float64
	}{
		{callerReg, "muster_peer_call_seconds", map[string]string{"method": "echo", "outcome": "ok"}, 3},
		{callerReg, "muster_peer_call_seconds", map[string]string{"method": "missing", "outcome": "not_sent"}, 1},
		{callerReg, "muster_peer_call_seconds", map[string]string{"method": "other", "outcome": "not_sent"}, 1},
		{serverReg, "muster_peer_served_seconds", map[string]string{"method": "echo", "outcome": "ok"}, 3},
		{callerReg, "muster_peer_connections", map[string]string{"kind": "rpc", "direction": "out"}, 1},
		{serverReg, "muster_peer_connections", map[string]string{"kind": "rpc", "direction": "in"}, 1},
	} {
		if got := counterValue(t, tt.reg, tt.name, tt.labels); got != tt.want {
			t.Errorf("%s%v = %v, want %v", tt.name, tt.labels, got, tt.want)
		}
	}
	if got := counterValue(t, serverReg, "muster_peer_bytes_total", map[string]string{"kind": "rpc", "direction": "received"}); got < 15 {
		t.Errorf("%v bytes received, want at least the bodies", got)
	}
	server.stop()
	if got := counterValue(t, serverReg, "muster_peer_connections", map[string]string{"kind": "rpc", "direction": "in"}); got != 0 {
		t.Errorf("%v connections after the end, want 0", got)
	}
}

// counterValue returns the value of a counter or gauge, or the count of a
// histogram; 0 if it is not there.
func counterValue(t *testing.T, reg *prometheus.Registry, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
					continue metrics
				}
			}
			return float64(m.GetHistogram().GetSampleCount()) + m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

func BenchmarkCall(b *testing.B) {
	caller, server := pair(b, peer.Config{}, peer.Config{}, nil)
	addr, body := peer.At("server", server.Advertised()), make([]byte, 300)
	call := func() {
		if _, err := caller.Call(b.Context(), addr, "echo", body); err != nil {
			b.Error(err)
		}
	}
	b.Run("serial", func(b *testing.B) {
		for b.Loop() {
			call()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				call()
			}
		})
	})
}
