package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

const (
	// The pause before a call is repeated: at most this long, the first time and the
	// last.
	callFirst = 25 * time.Millisecond
	callMost  = time.Second
	// drainMost is how much is read of an answer that is given up, to keep its
	// connection.
	drainMost = 64 << 10
)

// RoundTrip sends a request to an instance of the service its URL names. It
// implements http.RoundTripper.
func (t *caller) RoundTrip(r *http.Request) (*http.Response, error) {
	k := &call{t: t, r: r}
	resp, err := k.run()
	if !k.bodyUsed && r.Body != nil {
		// A RoundTripper always closes the body; where it was sent, its transport does.
		_ = r.Body.Close() // there is an error to tell already
	}
	return resp, err
}

// call is one call by name. It belongs to the goroutine of its RoundTrip.
type call struct {
	t        *caller
	r        *http.Request
	name     *name
	by       PickBy
	port     string   // that the URL names
	safe     bool     // to be repeated after something was sent
	whole    bool     // its body, if any, can be had again
	bodyUsed bool     // the request's own body was given away
	tried    []string // instances
	sends    int
	pauses   *backoff.ExponentialBackOff
}

// sent is what came of sending a call to one instance.
type sent struct {
	resp   *http.Response
	err    error
	part   bool // something may have reached the instance
	end    func(balancer.Outcome, bool)
	failed bool
	took   time.Duration
}

func (k *call) run() (*http.Response, error) {
	ctx := k.r.Context()
	service, port, err := serviceOf(k.r)
	if k.port = port; err != nil {
		return nil, err
	}
	if k.name, err = k.t.name(ctx, service); err != nil {
		return nil, err
	}
	if err := k.known(ctx); err != nil {
		return nil, err
	}
	k.prepare()
	k.name.budget.earn(time.Now())
	for {
		s, err := k.send(ctx)
		if err != nil {
			return nil, err // nobody to send it to
		}
		wait, again := k.again(ctx, s)
		if !again {
			return k.result(s)
		}
		k.giveUp(s)
		if wait > 0 && !pause(ctx, wait) {
			return nil, fmt.Errorf("calling %s: %w", service, context.Cause(ctx))
		}
	}
}

// known waits until something is known of the service.
func (k *call) known(ctx context.Context) error {
	if k.name.watch.View() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.t.c.cfg.Timeout)
	defer cancel()
	_, err := k.name.watch.Await(ctx)
	return err
}

// prepare finds out how to pick and what is safe.
func (k *call) prepare() {
	cfg := &k.t.c.cfg.Calls
	k.by = cfg.By
	if by, ok := k.r.Context().Value(pickKey{}).(PickBy); ok {
		k.by = by
	}
	if k.port != "" {
		k.by.Port = k.port
	}
	if k.by.Key == "" {
		k.by.Key = k.r.URL.Path
		if cfg.Key != nil {
			k.by.Key = cfg.Key(k.r)
		}
	}
	k.whole = k.r.Body == nil || k.r.Body == http.NoBody || k.r.GetBody != nil
	switch k.r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		k.safe = true
	default:
		k.safe = len(k.r.Header["Idempotency-Key"]) > 0 || len(k.r.Header["X-Idempotency-Key"]) > 0
	}
	k.pauses = delays(callFirst, callMost)
}

// again says whether to repeat the call, and after how long. What was sent costs
// from the budget; what was not is no load on anybody.
func (k *call) again(ctx context.Context, s *sent) (time.Duration, bool) {
	if k.sends >= k.t.c.cfg.Calls.Attempts || !k.whole || ctx.Err() != nil {
		return 0, false
	}
	if s.err != nil && !s.part {
		if len(k.tried) > 1 || !k.others() {
			return k.pauses.NextBackOff(), true
		}
		return 0, true
	}
	if s.err == nil && !isRetryable(s.resp.StatusCode) || !k.safe {
		return 0, false
	}
	wait := k.pauses.NextBackOff()
	if s.resp != nil && !k.others() {
		// It asks for time for itself; another one is free to answer.
		after := retryAfter(s.resp.Header)
		if after > maxRetryAfter {
			return 0, false
		}
		wait = max(wait, after)
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= wait {
		return 0, false
	}
	return wait, k.name.budget.spend(time.Now())
}

// others reports whether there are instances that were not tried.
func (k *call) others() bool {
	v := k.name.watch.View()
	if v == nil {
		return false
	}
	v, err := k.t.c.narrowed(v, &k.by)
	return err == nil && v.Routable() > len(k.tried)
}

// isRetryable reports whether an answer says that another instance may do better.
func isRetryable(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// isFailure reports whether an answer is a failure of the instance.
func isFailure(status int) bool {
	return status >= 500 && status != http.StatusNotImplemented && status != http.StatusHTTPVersionNotSupported
}

// giveUp ends what will be repeated.
func (k *call) giveUp(s *sent) {
	if s.resp == nil {
		return
	}
	_, _ = io.CopyN(io.Discard, s.resp.Body, drainMost) // what it says does not count any more
	_ = s.resp.Body.Close()
}

// result is what the caller gets.
func (k *call) result(s *sent) (*http.Response, error) {
	if s.err != nil {
		return nil, fmt.Errorf("calling service %s (%d sent): %w", k.name.watch.entry.key.Service, k.sends, s.err)
	}
	return s.resp, nil
}

// one sends the call to one instance that was picked by Start, and tells the
// balancer what came of it: at the end of the answer's body where there is one.
func (k *call) one(ctx context.Context, choice balancer.Choice, body io.ReadCloser) *sent {
	w, caller := k.name.watch, ctx
	ctx, cancel := context.WithCancelCause(ctx)
	if d := k.t.c.cfg.Calls.AttemptTimeout; d > 0 {
		silent := time.AfterFunc(d, func() { cancel(errSilent) })
		defer silent.Stop()
	}
	var over atomic.Bool
	s := &sent{}
	s.end = func(o balancer.Outcome, unknown bool) {
		switch {
		case !over.CompareAndSwap(false, true):
			return
		case unknown:
			w.Drop(choice)
		default:
			w.Done(choice, o)
		}
		cancel(nil)
	}
	began := time.Now()
	var got atomic.Bool
	s.resp, s.err = k.t.transport.RoundTrip(k.request(
		httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { got.Store(true) }}), choice.Instance, body))
	s.took = time.Since(began)
	if s.err != nil {
		s.part = got.Load() && !isDial(s.err)
		if cause := context.Cause(ctx); cause != nil && caller.Err() == nil {
			s.err = fmt.Errorf("%s: %w", k.address(choice.Instance), cause)
		}
		// Whoever gives up says nothing of the instance; whose time runs out does.
		s.end(balancer.Outcome{Failed: true, Latency: s.took}, errors.Is(context.Cause(caller), context.Canceled) || errors.Is(context.Cause(caller), errHedged))
		return s
	}
	s.failed = isFailure(s.resp.StatusCode)
	if s.resp.StatusCode == http.StatusSwitchingProtocols {
		// Its body is a connection of its own now; how long that lasts says nothing.
		w.Done(choice, balancer.Outcome{Latency: s.took})
		over.Store(true)
		return s
	}
	s.resp.Body = &answerBody{ReadCloser: s.resp.Body, s: s, caller: caller}
	return s
}

// isDial reports whether no connection could be made. The transport tries another
// one only where nothing was written on the first.
func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// address is where the call goes at an instance.
func (k *call) address(i *muster.Instance) string {
	addr, _ := i.HostPort(k.by.Port) // only those that have it were picked from
	return addr
}

// request is the call as it goes to an instance.
func (k *call) request(ctx context.Context, i *muster.Instance, body io.ReadCloser) *http.Request {
	r := k.r.Clone(ctx)
	r.Body = body
	if r.Host == "" {
		r.Host = k.r.URL.Host
	}
	if k.port != "" && r.Host == k.r.URL.Host {
		r.Host = r.Host[len("_")+len(k.port)+len("."):]
	}
	r.URL.Host = k.address(i)
	return r
}

// answerBody tells, at its end, what became of the call.
type answerBody struct {
	io.ReadCloser
	s      *sent
	caller context.Context // of the call, to tell its end from the instance's
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.s.end(balancer.Outcome{Failed: b.s.failed, Latency: b.s.took}, false)
	default:
		b.s.end(balancer.Outcome{Failed: true, Latency: b.s.took}, errors.Is(b.caller.Err(), context.Canceled))
	}
	return n, err
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.s.end(balancer.Outcome{Failed: b.s.failed, Latency: b.s.took}, false)
	return err
}
