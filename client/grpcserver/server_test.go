package grpcserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/client/grpcserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node takes the registrations and heartbeats of one session.
type node struct {
	*httptest.Server
	away   atomic.Bool   // answers nothing but 503
	refuse atomic.Bool   // fences registrations and heartbeats
	steps  chan string   // what was asked of it beside heartbeats, in order
	gate   chan struct{} // closed: deregistrations go through
}

func newNode(t *testing.T) *node {
	n := &node{steps: make(chan string, 100), gate: make(chan struct{})}
	n.Server = httptest.NewServer(n)
	t.Cleanup(n.Close)
	return n
}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Muster-Cluster", "c-1")
	w.Header().Set("Muster-Index", "7")
	var answer string
	switch {
	case n.away.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
		answer = `{"code":"no_leader"}`
	case strings.HasSuffix(r.URL.Path, "/batch/register"):
		var in struct{ Instances []struct{ Weight int } }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			panic(err)
		}
		n.steps <- fmt.Sprintf("weight %d", in.Instances[0].Weight)
		answer = `{"results":[{"namespace":"default","service":"users","id":"u-1"}]}`
	case strings.HasSuffix(r.URL.Path, "/heartbeats") && n.refuse.Load():
		answer = `{"renewed":0,"unknown":[],"fenced":["default/users/u-1"]}`
	case strings.HasSuffix(r.URL.Path, "/heartbeats"):
		answer = `{"renewed":1,"unknown":[],"next":"200ms"}`
	default:
		n.steps <- "deregistered"
		<-n.gate
		w.WriteHeader(http.StatusNoContent)
	}
	fmt.Fprint(w, answer)
}

// world is a server with its session, and a connection to it.
type world struct {
	t       *testing.T
	node    *node
	grpc    *grpc.Server
	server  *grpcserver.Server
	session *client.Session
	end     context.CancelFunc // of the session
	health  grpc_health_v1.HealthClient
	served  chan error
}

func begin(t *testing.T, cfg grpcserver.Config, opts ...client.SessionOption) *world {
	t.Helper()
	w := &world{t: t, node: newNode(t), served: make(chan error, 1)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Config{Addrs: []string{w.node.URL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	server := grpc.NewServer(grpcserver.Options()...)
	w.grpc = server
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "users.UserService", HandlerType: (*any)(nil)}, nil)
	if w.server, err = grpcserver.New(server, cfg); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	w.end = end
	t.Cleanup(end)
	w.session, err = c.Register(ctx, muster.Instance{Service: "users", ID: "u-1", Address: "127.0.0.1",
		Port: l.Addr().(*net.TCPAddr).Port, TTL: muster.TTL(time.Second)}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	go func() { w.served <- w.server.Serve(l, w.session) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w.health = grpc_health_v1.NewHealthClient(conn)
	return w
}

// watch follows the health of a service.
func (w *world) watch(service string) grpc_health_v1.Health_WatchClient {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	w.t.Cleanup(cancel)
	stream, err := w.health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatal(err)
	}
	return stream
}

// until reads the health until it is as wanted.
func (w *world) until(stream grpc_health_v1.Health_WatchClient, want string) {
	w.t.Helper()
	for {
		got, err := stream.Recv()
		if err != nil {
			w.t.Fatalf("waiting for %s: %v", want, err)
		}
		if got.Status.String() == want {
			return
		}
	}
}

func (w *world) over() error {
	w.t.Helper()
	select {
	case err := <-w.served:
		return err
	case <-time.After(time.Minute):
		w.t.Fatal("Serve does not return")
		return nil
	}
}

// TestEnd: not serving, then drained, then deregistered, and calls are answered until
// all that is over.
func TestEnd(t *testing.T) {
	w := begin(t, grpcserver.Config{StopTimeout: 100 * time.Millisecond}, client.Drain(300*time.Millisecond))
	all, one := w.watch(""), w.watch("users.UserService")
	w.until(all, "SERVING")
	w.until(one, "SERVING")
	if err := w.session.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.end()
	w.until(all, "NOT_SERVING")
	w.until(one, "NOT_SERVING")
	select {
	case <-w.session.Done():
		t.Error("the session ended before the health did")
	default:
	}
	var steps []string
	for len(steps) == 0 || steps[len(steps)-1] != "deregistered" {
		steps = append(steps, <-w.node.steps)
	}
	// A busy machine may be too late for a heartbeat: the same is registered again.
	if got := slices.Compact(steps); !slices.Equal(got, []string{"weight 100", "weight 0", "deregistered"}) {
		t.Errorf("the registry was asked for %q", got)
	}
	// The registry has not answered yet, and calls are still taken.
	if r, err := w.health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil || r.Status.String() != "NOT_SERVING" {
		t.Errorf("a call before it is deregistered: %v %v", r, err)
	}
	close(w.node.gate)
	if err := w.over(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	// The streams of this test outlast the stop timeout, and are broken off.
	if _, err := all.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
}

// TestRegistryAway: the health does not hang on the registry, unless that is wanted.
func TestRegistryAway(t *testing.T) {
	for only, want := range map[bool]string{false: "SERVING", true: "NOT_SERVING"} {
		t.Run(want, func(t *testing.T) {
			w := begin(t, grpcserver.Config{OnlyRegistered: only, StopTimeout: 10 * time.Millisecond})
			close(w.node.gate)
			stream := w.watch("")
			w.until(stream, "SERVING")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := w.session.Await(ctx); err != nil {
				t.Fatal(err)
			}
			w.node.away.Store(true)
			for state := client.StateRegistered; state != client.StateLost; {
				var err error
				if state, err = w.session.Next(ctx, state); err != nil {
					t.Fatal(err)
				}
			}
			if only {
				w.until(stream, "NOT_SERVING")
			}
			if r, err := w.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || r.Status.String() != want {
				t.Errorf("while the registry is away: %v %v", r, err)
			}
			w.node.away.Store(false)
			if only {
				w.until(stream, "SERVING")
			}
			w.end()
			w.until(stream, "NOT_SERVING")
			if err := w.over(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStoppedByProgram: a program that stops its gRPC server itself ends the session
// by that, and Serve waits for its end.
func TestStoppedByProgram(t *testing.T) {
	for name, stop := range map[string]func(*grpc.Server){"now": (*grpc.Server).Stop, "gently": (*grpc.Server).GracefulStop} {
		for _, serving := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, serving %t", name, serving), func(t *testing.T) {
				w := begin(t, grpcserver.Config{})
				if err := w.session.Await(t.Context()); err != nil {
					t.Fatal(err)
				}
				if serving { // else it may not serve yet
					if _, err := w.health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
						t.Fatal(err)
					}
				}
				stop(w.grpc)
				for step := ""; step != "deregistered"; {
					select {
					case step = <-w.node.steps:
					case err := <-w.served:
						t.Fatalf("Serve returned %v, and the instance is registered", err)
					}
				}
				select {
				case err := <-w.served:
					t.Errorf("Serve returned %v before the session ended", err)
				default:
				}
				close(w.node.gate)
				if err := w.over(); err != nil {
					t.Errorf("it ended with %v", err)
				}
				if state, err := w.session.State(); state != client.StateEnded || err != nil {
					t.Errorf("the session is %s %v", state, err)
				}
			})
		}
	}
}

// TestFenced: where another process has the instance this one stops, and says why.
func TestFenced(t *testing.T) {
	w := begin(t, grpcserver.Config{StopTimeout: 10 * time.Millisecond})
	w.until(w.watch(""), "SERVING")
	w.node.refuse.Store(true)
	if err := w.over(); !errors.Is(err, muster.CodeFenced) {
		t.Errorf("it ended with %v", err)
	}
}

// TestOwnOpinion: what the program says counts while the session lets it serve.
func TestOwnOpinion(t *testing.T) {
	w := begin(t, grpcserver.Config{StopTimeout: 10 * time.Millisecond})
	close(w.node.gate)
	all, one := w.watch(""), w.watch("users.UserService")
	w.until(all, "SERVING")
	w.until(one, "SERVING")
	w.server.SetServing("users.UserService", false)
	w.until(one, "NOT_SERVING")
	w.server.SetServing("users.UserService", true)
	w.until(one, "SERVING")
	w.server.SetServing("", false)
	w.until(all, "NOT_SERVING")
	if r, err := w.health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "users.UserService"}); err != nil || r.Status.String() != "SERVING" {
		t.Errorf("the service beside it: %v %v", r, err)
	}
	if _, err := w.health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "other"}); status.Code(err) != codes.NotFound {
		t.Errorf("a service nobody knows: %v", err)
	}
	w.end()
	w.until(one, "NOT_SERVING")
	if err := w.over(); err != nil {
		t.Error(err)
	}
	w.server.SetServing("", true) // too late: it has no say any more
}

func TestRefused(t *testing.T) {
	server := grpc.NewServer()
	if _, err := grpcserver.New(server, grpcserver.Config{StopTimeout: -1}); !errors.Is(err, muster.CodeConflictingField) {
		t.Errorf("a negative timeout: %v", err)
	}
	if _, err := grpcserver.New(server, grpcserver.Config{}); err != nil {
		t.Fatal(err)
	}
	if _, err := grpcserver.New(server, grpcserver.Config{}); !errors.Is(err, muster.CodeConflict) {
		t.Errorf("a second health service: %v", err)
	}
}

// TestListenerFails: Serve says so, and leaves the session to its owner.
func TestListenerFails(t *testing.T) {
	n := newNode(t)
	close(n.gate)
	c, err := client.New(client.Config{Addrs: []string{n.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	session, err := c.Register(t.Context(), muster.Instance{Service: "users", ID: "u-1", Address: "127.0.0.1", Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s, err := grpcserver.New(grpc.NewServer(), grpcserver.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l, session); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	select {
	case <-session.Done():
		t.Error("the session ended")
	default:
	}
}

// TestTracesOff: where nobody asks for traces they cost nothing.
func TestTracesOff(t *testing.T) {
	for endpoint, want := range map[string]int{"": 0, "http://127.0.0.1:1": 1} {
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
		if got := len(grpcserver.Options()); got != want {
			t.Errorf("with endpoint %q there are %d options, want %d", endpoint, got, want)
		}
	}
}
