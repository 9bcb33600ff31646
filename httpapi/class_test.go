package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
)

// stuckRegistry answers a list, or a registration of a service called stuck, when
// it is told to, the one that is asked for by its prefix or id.
type stuckRegistry struct {
	*memory
	free map[string]chan struct{}
}

func (r *stuckRegistry) hold(ctx context.Context, name string) {
	if c := r.free[name]; c != nil {
		select {
		case <-c:
		case <-ctx.Done():
		}
	}
}

func (r *stuckRegistry) Services(ctx context.Context, namespace, prefix string, o muster.ReadOptions) (*muster.Services, muster.ReadInfo, error) {
	r.hold(ctx, prefix)
	return r.memory.Services(ctx, namespace, prefix, o)
}

func (r *stuckRegistry) Register(ctx context.Context, who muster.Caller, i *muster.Instance, cond muster.Condition) (muster.Written, error) {
	r.hold(ctx, i.ID)
	return r.memory.Register(ctx, who, i, cond)
}

// crowd sends requests at once and holds what they are answered.
type crowd struct {
	t        *testing.T
	server   *httpapi.Server
	registry *stuckRegistry
	cluster  *members
	metrics  *prometheus.Registry
}

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t, registry: &stuckRegistry{newMemory(), map[string]chan struct{}{}}, cluster: newMembers(), metrics: prometheus.NewRegistry()}
	deps := depsOf(nowhere{}, c.registry.memory)
	deps.Cluster = c.cluster
	deps.Registry, deps.Registerer, deps.Gatherer = c.registry, c.metrics, c.metrics
	var err error
	if c.server, err = httpapi.New(httpapi.Config{}, deps); err != nil {
		t.Fatal(err)
	}
	return c
}

// send sends a request; its answer is complete once done is closed.
func (c *crowd) send(method, target, body string) (w *httptest.ResponseRecorder, done chan struct{}) {
	w, done = httptest.NewRecorder(), make(chan struct{})
	r := httptest.NewRequestWithContext(c.t.Context(), method, "http://localhost"+target, strings.NewReader(body))
	go func() {
		defer close(done)
		c.server.Handler().ServeHTTP(w, r)
	}()
	synctest.Wait()
	return w, done
}

// want sends a request that is answered at once.
func (c *crowd) want(method, target, body string, status int) {
	c.t.Helper()
	w, done := c.send(method, target, body)
	select {
	case <-done:
		if w.Code != status {
			c.t.Errorf("%s %s: got %d %s, want %d", method, target, w.Code, w.Body, status)
		}
	default:
		c.t.Errorf("%s %s is not answered", method, target)
	}
}

// list sends a list that is held until free[name] is closed.
func (c *crowd) list(name string) (*httptest.ResponseRecorder, chan struct{}) {
	c.registry.free[name] = make(chan struct{})
	return c.send("GET", "/v1/services?prefix="+name, "")
}

func (c *crowd) shed(class string) float64 {
	c.t.Helper()
	return counter(c.t, c.metrics, "muster_httpapi_shed_total", class)
}

// counter reads a counter, the one whose label is class where it has one.
func counter(t *testing.T, g prometheus.Gatherer, name, class string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (class == "" || m.GetLabel()[0].GetValue() == class) {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no counter %s %s", name, class)
	return 0
}

// TestListsAreShedFirst: where there are as many lists as there may be, more of them
// are refused after a moment, and nothing else is.
func TestListsAreShedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		c.want("PUT", inst, okBody, 201)
		var held []*httptest.ResponseRecorder
		for n := range muster.MaxListsInWork {
			w, _ := c.list(fmt.Sprint("held", n))
			held = append(held, w)
		}
		start := time.Now()
		w, done := c.send("GET", "/v1/events", "")
		<-done
		if after, err := strconv.Atoi(w.Header().Get("Retry-After")); w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"overloaded"`) || err != nil || after < 1 || after > 5 {
			t.Errorf("one list too many: got %d %v %s", w.Code, w.Header(), w.Body)
		}
		if took := time.Since(start); took != 250*time.Millisecond {
			t.Errorf("refused after %s, want 250ms", took)
		}
		if got := c.shed("list"); got != 1 {
			t.Errorf("%v lists are counted as shed, want 1", got)
		}
		c.want("GET", service, "", 200)
		c.want("PUT", inst, okBody, 200)
		c.want("PUT", inst+"/heartbeat", "", 200)
		c.want("GET", service+"/pick", "", 200)
		c.want("GET", "/v1/cluster", "", 200)
		c.want("GET", "/livez", "", 200)
		c.want("GET", "/metrics", "", 200)
		c.want("DELETE", inst, "", 204)
		for n, w := range held {
			close(c.registry.free[fmt.Sprint("held", n)])
			synctest.Wait()
			if w.Code != 200 {
				t.Errorf("a list that was in work got %d", w.Code)
			}
		}
		c.want("GET", "/v1/services", "", 200)
		if got := c.shed("read") + c.shed("write") + c.shed("vital"); got != 0 {
			t.Errorf("%v others were shed", got)
		}
	})
}

// TestRegistrationsAreRefusedBehindALeaderThatIsBehind: before their bodies are
// looked at; renewals, deregistrations and reads go on.
func TestRegistrationsAreRefusedBehindALeaderThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		c.want("PUT", inst, okBody, 201)
		c.cluster.setBehind(muster.Errorf(muster.CodeOverloaded, "the leader is behind").WithRetryAfter(3 * time.Second))
		w, _ := c.send("PUT", inst, "this is not read")
		if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"overloaded"`) || w.Header().Get("Retry-After") != "3" {
			t.Errorf("a registration: got %d %v %s", w.Code, w.Header(), w.Body)
		}
		c.want("POST", "/v1/batch/register", `{"instances":[]}`, 503)
		if got := c.shed("write"); got != 2 {
			t.Errorf("%v writes are counted as shed, want 2", got)
		}
		c.want("PUT", inst+"/heartbeat", "", 200)
		c.want("GET", service, "", 200)
		c.want("GET", "/v1/services", "", 200)
		c.want("DELETE", inst, "", 204)
		c.cluster.setBehind(nil)
		c.want("PUT", inst, okBody, 201)
	})
}

// TestNewestFirst: a place that becomes free goes to who came last, and the first is
// sent away where too many wait.
func TestNewestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		for n := range muster.MaxListsInWork {
			c.list(fmt.Sprint("held", n))
		}
		first, firstDone := c.send("GET", "/v1/services?prefix=first", "")
		last := first
		for n := range 2 * muster.MaxListsInWork {
			select {
			case <-firstDone:
				t.Fatalf("the first is answered with %d when %d wait", first.Code, n)
			default:
			}
			last, _ = c.send("GET", fmt.Sprint("/v1/services?prefix=next", n), "")
		}
		select {
		case <-firstDone:
		default:
			t.Fatal("the first still waits")
		}
		if first.Code != 503 {
			t.Errorf("the first got %d", first.Code)
		}
		// The last runs at once, and with its place all others that wait, one by one.
		close(c.registry.free["held0"])
		synctest.Wait()
		if last.Code != 200 || last.Body.Len() == 0 {
			t.Errorf("the last got %d %s", last.Code, last.Body)
		}
		if got := c.shed("list"); got != 1 {
			t.Errorf("%v were shed, want 1", got)
		}
		for n := range muster.MaxListsInWork - 1 {
			close(c.registry.free[fmt.Sprint("held", n+1)])
		}
		synctest.Wait()
	})
}

// TestWaitingIsNoWork: long polls that wait take no room from others.
func TestWaitingIsNoWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		c.want("PUT", inst, okBody, 201)
		var polls []chan struct{}
		for range 10 * muster.MaxListsInWork {
			_, done := c.send("GET", "/v1/services?index=1&wait=10s", "")
			polls = append(polls, done)
		}
		c.want("GET", "/v1/services", "", 200)
		for _, done := range polls {
			<-done
		}
		if got := c.shed("list"); got != 0 {
			t.Errorf("%v lists were shed", got)
		}
	})
}

// TestWritesHaveRoomOfTheirOwn: registrations that hang keep nobody from reading,
// renewing and leaving.
func TestWritesHaveRoomOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		c.want("PUT", inst, okBody, 201)
		c.registry.free["stuck"] = make(chan struct{})
		for range muster.MaxWritesInWork {
			r := httptest.NewRequestWithContext(t.Context(), "PUT", "http://localhost/v1/services/web/instances/stuck", strings.NewReader(okBody))
			go c.server.Handler().ServeHTTP(httptest.NewRecorder(), r)
		}
		synctest.Wait()
		w, done := c.send("PUT", inst, okBody)
		<-done
		if w.Code != 503 {
			t.Errorf("one write too many got %d", w.Code)
		}
		c.want("PUT", inst+"/heartbeat", "", 200)
		c.want("GET", service, "", 200)
		c.want("GET", "/v1/services", "", 200)
		c.want("DELETE", inst, "", 204)
		close(c.registry.free["stuck"])
		synctest.Wait()
	})
}

// fromAddress is a listener whose connections seem to come from elsewhere.
type fromAddress struct {
	net.Listener
	from chan string
}

type elsewhere struct {
	net.Conn
	from net.Addr
}

func (e elsewhere) RemoteAddr() net.Addr { return e.from }

func (l fromAddress) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return elsewhere{c, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(<-l.from))}, nil
}

// TestConnectionsPerAddress: an address has as many connections as it may, loopback
// any number; one that carries a stream counts as a stream; all together are bounded.
func TestConnectionsPerAddress(t *testing.T) {
	var from chan string
	f := newFixture(t, func(cfg *httpapi.Config, d *httpapi.Deps) {
		cfg.ConnectionsPerAddress, cfg.Connections = 2, 6
		from = make(chan string, 1)
		d.Listener = fromAddress{d.Listener, from}
	})
	f.registry.streams = make(chan string)
	f.run(t)
	open := func(addr, path string) (net.Conn, bool) {
		t.Helper()
		from <- addr
		c := dial(t, f)
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
		var b [12]byte
		n, _ := c.Read(b[:])
		return c, string(b[:n]) == "HTTP/1.1 200"
	}
	want := func(addr, path string, ok bool) net.Conn {
		t.Helper()
		c, got := open(addr, path)
		if got != ok {
			t.Errorf("a connection from %s: taken %t, want %t", addr, got, ok)
		}
		return c
	}
	first := want("192.0.2.1:1", "/livez", true)
	want("192.0.2.1:2", "/livez", true)
	want("[::ffff:192.0.2.1]:3", "/livez", false)
	want("192.0.2.2:1", "/livez", true)
	if got := counter(t, f.metrics, "muster_httpapi_connections_refused_total", ""); got != 1 {
		t.Errorf("%v refusals are counted, want 1", got)
	}
	first.Close()
	f.await(t, "muster_httpapi_connections", func(n float64) bool { return n == 2 })
	stream := want("192.0.2.1:4", "/v1/watch", true)
	f.await(t, "muster_httpapi_connections", func(n float64) bool { return n == 3 })
	want("192.0.2.1:5", "/livez", true)
	want("192.0.2.1:6", "/livez", false)
	for n := range 2 {
		want(fmt.Sprint("127.0.0.1:", n+1), "/livez", true)
	}
	want("127.0.0.1:9", "/livez", false) // six in all
	stream.Close()
	f.await(t, "muster_httpapi_connections", func(n float64) bool { return n == 5 })
	want("127.0.0.1:9", "/livez", true)
	f.registry.streams = nil
}

// TestTurnedAway: who is one too many is told so where he listens.
func TestTurnedAway(t *testing.T) {
	f := newFixture(t, func(cfg *httpapi.Config, _ *httpapi.Deps) { cfg.Connections = 1 })
	f.run(t)
	one := dial(t, f)
	fmt.Fprint(one, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := one.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(dial(t, f)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 503 || resp.Header.Get("Content-Type") != "application/problem+json" || resp.Header.Get("Retry-After") != "5" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}
