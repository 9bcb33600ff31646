package client

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// namesKept is how many services are watched for calls by name at most; beyond it
	// the one that was called longest ago is let go.
	namesKept = 1000
	// nameIdle is how long a service is watched after the last call.
	nameIdle = 10 * time.Minute
)

// Calls are the calls to services by name.
type Calls struct {
	// Attempts is how often a call is sent at most, 1 to 10; 0 is DefaultCallAttempts,
	// 1 never repeats one.
	Attempts int
	// AttemptTimeout is how long an instance may take until its answer begins before
	// the next one is asked; 0 leaves that to the call's context.
	AttemptTimeout time.Duration
	// Hedge is after how long without an answer the call is sent to another instance
	// beside the first, where that is safe; whichever answers first counts. It is best
	// set to about the 95th percentile. 0 does not.
	Hedge time.Duration
	// By is how instances are picked; see WithPick for a call of its own.
	By PickBy
	// Key gives the key of a call for the hash strategies, where By has none; nil is
	// the path of its URL.
	Key func(*http.Request) string
	// Transport carries the calls; nil is one of the client's own, which goes by no
	// proxy: the addresses are those of instances.
	Transport http.RoundTripper
}

func (c *Calls) check() error {
	if c.Attempts < 1 || c.Attempts > 10 {
		return badConfig("Calls.Attempts %d is not between 1 and 10", c.Attempts)
	}
	if c.AttemptTimeout < 0 || c.Hedge < 0 {
		return badConfig("a duration of Calls is negative")
	}
	return nil
}

// HTTPClient calls services by name: http://web/path is sent to an instance of
// service web, http://_admin.web/path to the port that the instance names admin (up to
// the first dot; any other name is for PickBy.Port). Instances are picked by the balancer from a watched view; what became
// of a call is told to it, so that slow and failing ones are avoided; what is safe
// to repeat is repeated on another instance, within a budget. Errors are
// *[muster.Error] inside the *url.Error of net/http: unknown_service, no_instance,
// unreachable.
//
// Safe to repeat is a call of which nothing was sent, and one with an idempotent
// method (RFC 9110 §9.2.2, or with an Idempotency-Key header) whose body, if there
// is one, can be had again (http.Request.GetBody).
//
// A service is watched from the first call on until ten minutes after the last. With
// https:// the certificate has to name the instance's address; the Host header stays
// the name of the service, or the request's own. The returned client has no timeout:
// give the requests a context, or set one.
func (c *Client) HTTPClient() *http.Client { return &http.Client{Transport: c.RoundTripper()} }

// RoundTripper is the transport of HTTPClient, to be wrapped or used elsewhere. It
// is always the same.
func (c *Client) RoundTripper() http.RoundTripper { return c.calls }

type pickKey struct{}

// WithPick has the calls by name that carry the context pick in their own way
// instead of Calls.By.
func WithPick(ctx context.Context, by PickBy) context.Context {
	return context.WithValue(ctx, pickKey{}, by)
}

// caller is the transport of calls by name.
type caller struct {
	c         *Client
	transport http.RoundTripper
	own       *http.Transport // nil where the Config brought one

	mu    sync.Mutex
	names map[string]*name // guarded by mu
}

// name is a service that is called.
type name struct {
	watch  *Watch
	budget budget
	used   atomic.Int64 // unix nanoseconds
	cancel context.CancelFunc
	idle   *time.Timer
}

func newCaller(c *Client) *caller {
	t := &caller{c: c, transport: c.cfg.Calls.Transport, names: map[string]*name{}}
	if t.transport == nil {
		t.own = NewTransport(nil)
		t.transport = t.own
	}
	t.transport = traced(t.transport)
	return t
}

// name finds, or begins to watch, a service.
func (t *caller) name(ctx context.Context, service string) (*name, error) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.names[service]; n != nil {
		select {
		case <-n.watch.over: // the client is closed
		default:
			n.used.Store(now.UnixNano())
			return n, nil
		}
	}
	if len(t.names) >= namesKept {
		t.forgetOldest()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w, err := t.c.Watch(ctx, service)
	if err != nil {
		cancel()
		return nil, err
	}
	n := &name{watch: w, cancel: cancel}
	n.used.Store(now.UnixNano())
	n.idle = time.AfterFunc(nameIdle, func() { t.expire(service, n) })
	t.names[service] = n
	return n, nil
}

// expire lets a service go that nobody calls any more.
func (t *caller) expire(service string, n *name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names[service] != n {
		return
	}
	if left := nameIdle - time.Since(time.Unix(0, n.used.Load())); left > 0 {
		n.idle.Reset(left)
		return
	}
	n.cancel()
	delete(t.names, service)
}

// forgetOldest is called with mu held.
func (t *caller) forgetOldest() {
	oldest := ""
	for service, n := range t.names {
		if oldest == "" || n.used.Load() < t.names[oldest].used.Load() {
			oldest = service
		}
	}
	t.forget(oldest)
}

// forget is called with mu held.
func (t *caller) forget(service string) {
	n := t.names[service]
	n.idle.Stop()
	n.cancel()
	delete(t.names, service)
}

// close ends what is not part of a watch, which the client ends itself.
func (t *caller) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for service := range t.names {
		t.forget(service)
	}
	if t.own != nil {
		t.own.CloseIdleConnections()
	}
}

// serviceOf reads the service that a URL names, and the name of the port, "" for none:
// that has an underscore before it, as in the names of SRV records (RFC 2782), which no
// name of a service begins with.
func serviceOf(r *http.Request) (service, port string, err error) {
	if r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return "", "", muster.Errorf(muster.CodeInvalidPath, "the scheme of %q is neither http nor https", r.URL.Redacted())
	}
	if r.URL.Port() != "" || strings.HasSuffix(r.URL.Host, ":") {
		return "", "", muster.Errorf(muster.CodeInvalidPort, "%q gives the number of a port, and that comes from the registry", r.URL.Host).
			WithHint("write http://%s/, or http://_NAME.%[1]s/ for a port that has a name", r.URL.Hostname())
	}
	host := r.URL.Host
	if label, found := strings.CutPrefix(host, "_"); found {
		if port, host, _ = strings.Cut(label, "."); port == "" {
			host = r.URL.Host
		}
	}
	if service, err = muster.CleanService(host); err != nil {
		return "", "", muster.Errorf(muster.CodeInvalidName, "%q is not the name of a service", r.URL.Host).
			WithHint("this client calls services by name; use another for other hosts").WithCause(err)
	}
	return service, port, nil
}
