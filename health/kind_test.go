package health_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/health"
)

// at is an instance at a listener's address with one check.
func at(addr net.Addr, c muster.Check) *muster.Instance {
	tcp := addr.(*net.TCPAddr)
	i := &muster.Instance{Service: "web", ID: "web-1", Address: tcp.IP.String(), Port: tcp.Port, Checks: []muster.Check{c}}
	if err := i.Normalize(); err != nil {
		panic(err)
	}
	return i
}

func probe(t *testing.T, i *muster.Instance) health.Result {
	t.Helper()
	return health.Probe(t.Context(), health.NewGuard(health.GuardConfig{Loopback: true}), i, 0)
}

func httpServer(t *testing.T, secure bool, h http.HandlerFunc) net.Addr {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = nil
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr()
}

// rawServer answers every connection with what answer writes.
func rawServer(t *testing.T, answer func(net.Conn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answer(c)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr()
}

func TestHTTPKind(t *testing.T) {
	addr := httpServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		if ua := r.Header.Get("User-Agent"); !strings.HasPrefix(ua, "Muster-Health/") {
			t.Errorf("User-Agent is %q", ua)
		}
		switch r.URL.Path {
		case "/health":
			fmt.Fprint(w, "all is well")
		case "/query":
			if r.URL.RawQuery != "deep=1" {
				w.WriteHeader(500)
			}
		case "/post":
			if r.Method != http.MethodPost {
				w.WriteHeader(405)
			}
		case "/late":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(204)
		case "/teapot":
			w.WriteHeader(418)
			fmt.Fprint(w, "secret of the target")
		case "/self":
			w.Header().Set("Muster-Instance", "web-1")
		case "/other":
			w.Header().Set("Muster-Instance", "web-2")
		case "/far":
			_, _ = io.WriteString(w, strings.Repeat("x", 4096)+"needle")
		case "/hang":
			<-r.Context().Done()
		case "//double":
		default:
			w.WriteHeader(404)
		}
	})
	for _, tc := range []struct {
		name  string
		check muster.Check
		cause muster.CheckCause
		want  string // of the output
	}{
		{"passes", muster.Check{Path: "/health"}, "", "200 OK"},
		{"query", muster.Check{Path: "/query?deep=1"}, "", "200 OK"},
		{"post", muster.Check{Path: "/post", Method: "POST"}, "", "200 OK"},
		{"head", muster.Check{Path: "/health", Method: "HEAD"}, "", "200 OK"},
		{"informational first", muster.Check{Path: "/late"}, "", "204 No Content"},
		{"two slashes", muster.Check{Path: "//double"}, "", "200 OK"},
		{"status", muster.Check{Path: "/teapot"}, muster.CheckHTTPStatus, "418 I'm a teapot, not 200-399"},
		{"expected status", muster.Check{Path: "/teapot", Expect: "418"}, "", "418"},
		{"unexpected success", muster.Check{Path: "/health", Expect: "500-599"}, muster.CheckHTTPStatus, "200 OK"},
		{"text", muster.Check{Path: "/health", Contains: "is well"}, "", "200 OK"},
		{"no text", muster.Check{Path: "/health", Contains: "is ill"}, muster.CheckBody, "200 OK"},
		{"text beyond 4 KiB", muster.Check{Path: "/far", Contains: "needle"}, muster.CheckBody, "200 OK"},
		{"says who it is", muster.Check{Path: "/self"}, "", "200 OK"},
		{"another", muster.Check{Path: "/other"}, muster.CheckIdentityMismatch, "the target says it is web-2"},
		{"timeout", muster.Check{Path: "/hang", Timeout: muster.Duration(50 * time.Millisecond)}, muster.CheckTimeout, "no answer in time"},
		{"speaks no TLS", muster.Check{Path: "/health", TLS: true}, muster.CheckTLS, "the TLS handshake failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.check.Type = muster.CheckHTTP
			got := probe(t, at(addr, tc.check))
			if got.Cause != tc.cause || got.Passed != (tc.cause == "") || got.Skipped || !strings.HasPrefix(got.Output, tc.want) {
				t.Errorf("got %+v", got)
			}
			if strings.Contains(got.Output, "secret") {
				t.Errorf("the output shows the body: %q", got.Output)
			}
		})
	}
	secure := httpServer(t, true, func(http.ResponseWriter, *http.Request) {})
	if got := probe(t, at(secure, muster.Check{Type: muster.CheckHTTP, TLS: true})); !got.Passed {
		t.Errorf("over TLS: %+v", got)
	}
}

// TestHTTPBadAnswers: what a target sends wrong, or without end, is a failure, is
// not shown, and is not read for long.
func TestHTTPBadAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		repeat bool
		cause  muster.CheckCause
	}{
		"no HTTP":           {"SSH-2.0-secret\r\n\r\n", false, muster.CheckProtocol},
		"nothing":           {"", false, muster.CheckProtocol},
		"endless header":    {"HTTP/1.1 200 OK\r\n", true, muster.CheckProtocol},
		"endless beginning": {"HTTP/1.1 100 Continue\r\n\r\n", true, muster.CheckProtocol},
		"endless body":      {"HTTP/1.1 200 OK\r\n\r\n", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var sent int
			addr := rawServer(t, func(c net.Conn) {
				defer c.Close()
				_, _ = io.ReadAtLeast(c, make([]byte, 4096), 1)
				_, _ = io.WriteString(c, tc.answer)
				for tc.repeat && sent < 64<<20 {
					chunk := strings.Repeat("A: bcdefghijklmno\r\n", 512)
					if name == "endless beginning" {
						chunk = strings.Repeat(tc.answer, 512)
					}
					n, err := io.WriteString(c, chunk)
					if sent += n; err != nil {
						return
					}
				}
			})
			got := probe(t, at(addr, muster.Check{Type: muster.CheckHTTP}))
			if got.Cause != tc.cause || strings.Contains(got.Output, "secret") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestTCPKind(t *testing.T) {
	addr := rawServer(t, func(c net.Conn) { _ = c.Close() })
	if got := probe(t, at(addr, muster.Check{Type: muster.CheckTCP})); !got.Passed || got.Latency <= 0 {
		t.Errorf("got %+v", got)
	}
	if got := probe(t, at(closedPort(t), muster.Check{Type: muster.CheckTCP})); got.Cause != muster.CheckRefused {
		t.Errorf("a closed port: got %+v", got)
	}
	// The check's own port goes before the instance's.
	i := at(closedPort(t), muster.Check{Type: muster.CheckTCP, Port: addr.(*net.TCPAddr).Port})
	if got := probe(t, i); !got.Passed {
		t.Errorf("at a port of its own: got %+v", got)
	}
	i = at(addr, muster.Check{Type: muster.CheckTCP})
	i.Address = "no-such-host.invalid"
	if got := probe(t, i); got.Cause != muster.CheckDNS && got.Cause != muster.CheckTimeout {
		t.Errorf("a name that is not there: got %+v", got)
	}
}

func closedPort(t *testing.T) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr()
}

// identified sends the header that says which instance answers.
func identified(id string) grpc.ServerOption {
	return grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if id != "" {
			if err := grpc.SetHeader(ctx, metadata.Pairs("muster-instance", id)); err != nil {
				return nil, err
			}
		}
		return h(ctx, req)
	})
}

func grpcServer(t *testing.T, opts ...grpc.ServerOption) (net.Addr, *grpchealth.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	h := grpchealth.NewServer()
	healthpb.RegisterHealthServer(s, h)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr(), h
}

func TestGRPCKind(t *testing.T) {
	addr, h := grpcServer(t)
	h.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
	h.SetServingStatus("ill", healthpb.HealthCheckResponse_NOT_SERVING)
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	secure, _ := grpcServer(t, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: cert.TLS.Certificates})))
	self, _ := grpcServer(t, identified("web-1"))
	other, _ := grpcServer(t, identified("web-2"))
	silent := rawServer(t, func(c net.Conn) { t.Cleanup(func() { _ = c.Close() }) })
	talker := rawServer(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-secret\r\n"); _ = c.Close() })
	for _, tc := range []struct {
		name  string
		addr  net.Addr
		check muster.Check
		cause muster.CheckCause
	}{
		{"whole server", addr, muster.Check{}, ""},
		{"service", addr, muster.Check{Service: "shop"}, ""},
		{"not serving", addr, muster.Check{Service: "ill"}, muster.CheckNotServing},
		{"unknown service", addr, muster.Check{Service: "none"}, muster.CheckNotServing},
		{"tls", secure, muster.Check{TLS: true}, ""},
		{"tls where there is none", addr, muster.Check{TLS: true}, muster.CheckProtocol},
		{"says who it is", self, muster.Check{}, ""},
		{"another", other, muster.Check{}, muster.CheckIdentityMismatch},
		{"refused", closedPort(t), muster.Check{}, muster.CheckRefused},
		{"silent", silent, muster.Check{Timeout: muster.Duration(100 * time.Millisecond)}, muster.CheckTimeout},
		{"no gRPC", talker, muster.Check{}, muster.CheckProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.check.Type = muster.CheckGRPC
			got := probe(t, at(tc.addr, tc.check))
			if got.Cause != tc.cause || got.Passed != (tc.cause == "") || strings.Contains(got.Output, "secret") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestLifeOfAServer follows a real server that fails and recovers through three
// supervisors.
func TestLifeOfAServer(t *testing.T) {
	healthy := make(chan bool, 1)
	healthy <- true
	addr := httpServer(t, false, func(w http.ResponseWriter, _ *http.Request) {
		ok := <-healthy
		healthy <- ok
		if !ok {
			w.WriteHeader(503)
		}
	})
	r := newRig(t, 3, nil)
	i := r.register(*at(addr, muster.Check{Type: muster.CheckHTTP, Path: "/health", Interval: muster.Duration(time.Second), Fall: 2}))
	is := func(s muster.Status) func() bool { return func() bool { return r.status(i).Status == s } }
	r.wait("up", is(muster.StatusUp))
	<-healthy
	healthy <- false
	r.wait("down", is(muster.StatusDown))
	if c := r.status(i).Checks[0]; c.Cause != muster.CheckHTTPStatus || c.Output != "503 Service Unavailable, not 200-399" || c.Latency <= 0 {
		t.Errorf("got %+v", c.CheckState)
	}
	<-healthy
	healthy <- true
	r.wait("up again", is(muster.StatusUp))
}

// TestTargetLimits: many instances on one address are asked no more than 50 times
// a second, and no more than 8 at once, by all nodes together.
func TestTargetLimits(t *testing.T) {
	t.Run("slow target", func(t *testing.T) {
		if _, most := crowd(t, nil, 300*time.Millisecond, 60); most > 8 || most < 3 {
			t.Errorf("%d probes at once", most)
		}
	})
	t.Run("many names of a slow target", func(t *testing.T) {
		table := map[string][]string{}
		for n := range crowdSize {
			table[fmt.Sprintf("h%d.test", n)] = []string{"127.0.0.1"}
		}
		g := health.NewGuard(health.GuardConfig{Loopback: true, Resolver: names(t, table)})
		if _, most := crowd(t, g, 300*time.Millisecond, 60); most > 8 || most < 3 {
			t.Errorf("%d probes at once", most)
		}
	})
	t.Run("fast target", func(t *testing.T) {
		starts, _ := crowd(t, nil, 0, 150)
		for n, from := range starts {
			in := 0
			for _, s := range starts[n:] {
				if s.Sub(from) < time.Second {
					in++
				}
			}
			if in > 55 { // what was on its way may bunch a little
				t.Fatalf("%d probes within a second", in)
			}
		}
		if took := starts[len(starts)-1].Sub(starts[0]); took > 10*time.Second {
			t.Errorf("%d probes took %s", len(starts), took)
		}
	})
}

const crowdSize = 400

// crowd has 400 instances on one address be probed every second, and returns when
// that many probes arrived, and the most that were there at once. With a guard each
// has a name of its own.
func crowd(t *testing.T, g *health.Guard, slow time.Duration, count int) ([]time.Time, int) {
	t.Helper()
	var mu sync.Mutex // guards what follows
	var starts []time.Time
	open, most := 0, 0
	addr := httpServer(t, false, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		starts = append(starts, time.Now())
		open++
		most = max(most, open)
		mu.Unlock()
		select {
		case <-time.After(slow):
		case <-r.Context().Done():
		}
		mu.Lock()
		open--
		mu.Unlock()
	})
	r := newRig(t, 3, g)
	i := at(addr, muster.Check{Type: muster.CheckHTTP, Interval: muster.Duration(time.Second)})
	for n := range crowdSize {
		next := *i
		if g != nil {
			next.Address = fmt.Sprintf("h%d.test", n)
		}
		next.ID = "web-" + strconv.Itoa(n)
		r.register(next)
	}
	r.wait("probes", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(starts) >= count
	})
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(starts), most
}
