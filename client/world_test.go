package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/problem"
)

// world is a network in memory: hosts by name, each of which works or misbehaves in
// its own way. Under synctest its time is virtual. It is a http.RoundTripper.
type world struct {
	mu    sync.Mutex
	hosts map[string]*host
}

// host is one host of a world.
type host struct {
	name    string
	handler http.Handler

	mu     sync.Mutex
	mode   mode        // guarded by mu
	fault  muster.Code // guarded by mu: of mode coded
	asked  int         // guarded by mu: requests that arrived
	broken context.CancelCauseFunc
	life   context.Context // guarded by mu: ends with the host's connections
}

// mode is how a host behaves.
type mode uint8

const (
	works  mode = iota
	down        // refuses connections, and breaks those it has
	silent      // accepts, and never answers
	coded       // answers everything with fault
	cut         // takes a request, carries it out, and breaks the connection
)

func newWorld() *world { return &world{hosts: map[string]*host{}} }

// add puts a host that works into the world.
func (w *world) add(name string, h http.Handler) *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := &host{name: name, handler: h}
	n.life, n.broken = context.WithCancelCause(context.Background())
	w.hosts[name] = n
	return n
}

// become changes how the host behaves, and breaks what is on its way.
func (h *host) become(m mode) { h.turn(m, "") }

// answer makes the host answer everything with a code.
func (h *host) answer(code muster.Code) { h.turn(coded, code) }

func (h *host) turn(m mode, code muster.Code) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mode, h.fault = m, code
	if m == down {
		h.broken(errors.New("connection reset by peer"))
		h.life, h.broken = context.WithCancelCause(context.Background())
	}
}

func (h *host) requests() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// RoundTrip carries a request to its host.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	w.mu.Lock()
	h := w.hosts[r.URL.Host]
	w.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	if h == nil {
		return nil, refused
	}
	h.mu.Lock()
	m, fault, life := h.mode, h.fault, h.life
	if m != down {
		h.asked++
	}
	h.mu.Unlock()
	if m == down {
		return nil, refused
	}
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{})
	}
	switch m {
	case silent:
		select {
		case <-r.Context().Done():
			return nil, context.Cause(r.Context())
		case <-life.Done():
			return nil, context.Cause(life)
		}
	case coded:
		return carry(r, life, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { refuse(w, muster.Errorf(fault, "made so")) }))
	case cut:
		if resp, err := carry(r, life, h.handler); err == nil {
			resp.Body.Close()
		}
		return nil, errors.New("connection reset by peer")
	}
	return carry(r, life, h.handler)
}

func refuse(w http.ResponseWriter, err error) {
	p := problem.New(err, "", "")
	w.Header().Set("Content-Type", problem.ContentType)
	if after := p.RetryAfter(); after != "" {
		w.Header().Set("Retry-After", after)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(p.JSON())
}

// wire is an answer on its way: what a handler writes, its client reads.
type wire struct {
	header  http.Header
	status  int
	started chan struct{}
	once    sync.Once
	out     *io.PipeWriter
}

func (w *wire) Header() http.Header { return w.header }
func (w *wire) Flush()              { w.WriteHeader(http.StatusOK) }
func (w *wire) WriteHeader(status int) {
	w.once.Do(func() {
		w.status = status
		close(w.started)
	})
}

func (w *wire) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.out.Write(b)
}

// carry has a handler answer r. The connection lasts as long as life.
func carry(r *http.Request, life context.Context, handler http.Handler) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	unhook := context.AfterFunc(life, func() { cancel(context.Cause(life)) })
	in, out := io.Pipe()
	w := &wire{header: http.Header{}, started: make(chan struct{}), out: out}
	context.AfterFunc(ctx, func() { in.CloseWithError(context.Cause(ctx)) })
	there := r.Clone(ctx)
	there.RequestURI = r.URL.RequestURI()
	if there.Body == nil {
		there.Body = http.NoBody
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer unhook()
		handler.ServeHTTP(w, there)
		w.WriteHeader(http.StatusOK)
		out.Close()
	}()
	select {
	case <-w.started:
	case <-ctx.Done():
		<-done
		return nil, context.Cause(ctx)
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Header: w.header, Request: r, ContentLength: -1,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: &pipeBody{in, func() { cancel(errors.New("the client has gone")); <-done }},
	}, nil
}

type pipeBody struct {
	io.Reader
	close func()
}

func (b *pipeBody) Close() error { b.close(); return nil }

// nodes adds count nodes of a registry to the world.
func (w *world) nodes(r *registry, count int) []*host {
	var hosts []*host
	for n := range count {
		hosts = append(hosts, w.add(fmt.Sprintf("n%d:7400", n+1), r))
	}
	return hosts
}

// addrs are the addresses of hosts.
func addrs(hosts []*host) []string {
	var a []string
	for _, h := range hosts {
		a = append(a, (&url.URL{Scheme: "http", Host: h.name}).String())
	}
	return a
}

// newClient makes a client of the nodes that is closed when the test ends.
func newClient(t *testing.T, w *world, hosts []*host, change ...func(*client.Config)) *client.Client {
	t.Helper()
	cfg := client.Config{Addrs: addrs(hosts), Transport: w}
	for _, f := range change {
		f(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
