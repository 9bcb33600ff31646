package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fault"
	"github.com/muster-registry/muster/problem"
)

// CodeUnreachable says that no node of the registry answered, and that the request
// was surely not carried out. It is the client's own: no node sends it.
const CodeUnreachable muster.Code = "unreachable"

// The bounds of an answer.
const (
	maxAnswer      = 256 << 20 // bytes of a body
	maxRetryAfter  = 30 * time.Second
	roundFirst     = 100 * time.Millisecond // the first pause between rounds, at most
	roundMost      = 4 * time.Second
	serverMargin   = 250 * time.Millisecond // by which a node is asked to answer earlier
	minServerTimes = 50 * time.Millisecond
)

// request is one request to the registry. Options fill it in; it belongs to the
// goroutine of its call.
type request struct {
	method string
	path   string
	query  url.Values
	header http.Header
	body   []byte // JSON; nil for none

	// read carries min_index along; timed says that the route takes ?timeout=.
	read, timed bool
	// repeatable says that it may be sent again when nobody knows whether the first
	// was carried out.
	repeatable bool
	// attempt is how long one node may take; 0 is the Config's. hold is how much
	// longer it may hold the answer back.
	attempt, hold time.Duration
	info          *muster.ReadInfo // filled in by the answer; nil: not asked for
	began         *time.Time       // set when an attempt begins; nil: not asked for
}

// answer is what a node answered.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// index is the answer's Muster-Index, 0 where it has none.
func (a *answer) index() uint64 {
	n, err := strconv.ParseUint(a.header.Get("Muster-Index"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// decode reads the body into v.
func (a *answer) decode(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return muster.Errorf(muster.CodeInternal, "the answer is not what a Muster node sends").WithCause(err)
	}
	return nil
}

// failure is why an attempt came to nothing.
type failure struct {
	err  error // a *muster.Error where a node said so
	sent bool  // something may have reached a node
}

// remedy is what to do about a failure.
type remedy uint8

const (
	giveUp    remedy = iota
	elsewhere        // another node may do better, and this one is set aside
	later            // the registry asks for time, whichever node is asked
)

// remedy says what to do. A failure that may have been carried out is only
// repeated where that is safe.
func (f failure) remedy(repeatable bool) remedy {
	e, coded := errors.AsType[*muster.Error](f.err)
	if !coded {
		if f.sent && !repeatable && !fault.Is(fault.ClientRetriesUnknown) {
			return giveUp
		}
		return elsewhere
	}
	switch e.Code {
	case muster.CodeNoLeader, muster.CodeCatchingUp, muster.CodeShuttingDown, muster.CodeBehind, muster.CodeTooStale, muster.CodeDiskFull:
		return elsewhere
	case muster.CodeOverloaded, muster.CodeRateLimited:
		return later
	case muster.CodeOutcomeUnknown:
		if repeatable {
			return elsewhere
		}
	}
	return giveUp
}

// do sends r to one node after the other until one answers, and then in further
// rounds with pauses between them, until its context ends or the retry budget is
// used up. A context without a deadline is given Config.Timeout. The answer is
// returned beside a *muster.Error too, where a node gave one.
func (c *Client) do(ctx context.Context, r *request) (*answer, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout+r.hold)
		defer cancel()
	}
	c.budget.earn(time.Now())
	pauses := delays(roundFirst, roundMost)
	t := trial{r: r}
	for {
		wait := time.Duration(0)
		for _, nd := range c.nodes.order(time.Now()) {
			a, f := c.attempt(ctx, nd, r)
			if f.err == nil {
				c.nodes.served(nd)
				r.note(a)
				return a, nil
			}
			t.add(a, f)
			todo := f.remedy(r.repeatable)
			switch {
			case ctx.Err() != nil:
				return t.end(ctx)
			case todo == elsewhere:
				c.nodes.failed(nd, retryAfterOf(f.err), f.err)
				continue
			case a != nil:
				c.nodes.served(nd)
			}
			if todo == giveUp {
				return t.end(ctx)
			}
			wait = retryAfterOf(f.err)
			break
		}
		wait = max(wait, min(pauses.NextBackOff(), roundMost))
		if !c.budget.spend(time.Now()) || !pause(ctx, wait) {
			return t.end(ctx)
		}
	}
}

// trial is what came of a call's attempts so far.
type trial struct {
	r    *request
	sent bool    // something may have reached a node that did not say what became of it
	said *answer // the last that a node said; nil: none did
	err  error   // why that was no success
	last error   // why the last attempt failed
}

func (t *trial) add(a *answer, f failure) {
	t.last = f.err
	if a != nil {
		t.said, t.err = a, f.err
	} else if f.sent {
		t.sent = true
	}
}

// end is the end of a call that failed: with what a node said, if one said anything.
// That a node could not carry out a write does not say that another one did not,
// which was asked before and is silent since.
func (t *trial) end(ctx context.Context) (*answer, error) {
	if t.said == nil || t.sent && t.r.method != http.MethodGet && (t.said.status >= 500 || t.said.status == http.StatusTooManyRequests) {
		return nil, t.broken(ctx)
	}
	t.r.note(t.said)
	return t.said, t.err
}

// broken is the error of a request that no node answered.
func (t *trial) broken(ctx context.Context) error {
	cause := t.last
	if ctx.Err() != nil && !errors.Is(cause, context.Cause(ctx)) {
		cause = errors.Join(context.Cause(ctx), cause)
	}
	if t.sent && t.r.method != http.MethodGet {
		return muster.Errorf(muster.CodeOutcomeUnknown, "the connection broke, or the time ran out, before it was known whether the write happened").
			WithHint("register, deregister and heartbeat are safe to repeat").WithCause(cause)
	}
	return muster.Errorf(CodeUnreachable, "no node of the registry answered").
		WithHint("is it running, and are these the addresses of its API?").WithCause(cause)
}

// note fills in what the caller wanted to know beside the body.
func (r *request) note(a *answer) {
	if r.info == nil {
		return
	}
	*r.info = muster.ReadInfo{Index: a.index()}
	if ms, err := strconv.ParseInt(a.header.Get("Muster-Stale-Ms"), 10, 64); err == nil && ms > 0 {
		r.info.Stale = time.Duration(min(ms, int64(24*time.Hour/time.Millisecond))) * time.Millisecond
	}
}

func retryAfterOf(err error) time.Duration {
	if e, ok := errors.AsType[*muster.Error](err); ok {
		return min(e.RetryAfter, maxRetryAfter)
	}
	return 0
}

// errSilent is the cause of an attempt that ended because its node did not answer.
var errSilent = errors.New("the node did not answer in time")

// attempt asks one node. The answer is there beside an error that the node gave.
func (c *Client) attempt(ctx context.Context, nd *node, r *request) (*answer, failure) {
	if r.began != nil {
		*r.began = time.Now()
	}
	limit := c.cfg.AttemptTimeout
	if r.attempt > 0 {
		limit = min(limit, r.attempt)
	}
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)-r.hold)
	}
	limit = max(limit, minServerTimes)
	ctx, cancel := context.WithTimeoutCause(ctx, limit+r.hold, errSilent)
	defer cancel()
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	req, err := c.newRequest(ctx, nd, r, limit)
	if err != nil {
		return nil, failure{err: err}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("asking %s: %w", nd.base, cause)
		}
		return nil, failure{err, sent.Load()}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, failure{fmt.Errorf("reading the answer of %s: %w", nd.base, err), true}
	case len(body) > maxAnswer:
		return nil, failure{muster.Errorf(muster.CodeInternal, "the answer of %s is longer than %d bytes", nd.base, maxAnswer), true}
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: body}
	c.seen.note(a.header.Get("Muster-Cluster"), a.index())
	if a.status < 300 {
		return a, failure{}
	}
	return a, failure{errorOf(a), true}
}

// errorOf is the error that an answer tells.
func errorOf(a *answer) error {
	if a.status < 400 {
		return muster.Errorf(muster.CodeInternal, "the answer was %d %s, which no Muster node sends", a.status, http.StatusText(a.status)).
			WithHint("the address may be that of something else")
	}
	e := problem.Decode(a.status, a.body)
	if e.RetryAfter == 0 {
		e.RetryAfter = retryAfter(a.header)
	}
	return e
}

// retryAfter reads a Retry-After header (RFC 9110 §10.2.3); 0 where there is none.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// newRequest makes the HTTP request of one attempt. The node is asked to answer
// before the attempt ends, so that it is the one who says what became of it.
func (c *Client) newRequest(ctx context.Context, nd *node, r *request, limit time.Duration) (*http.Request, error) {
	q := url.Values{}
	for k, v := range r.query {
		q[k] = v
	}
	if r.read && !q.Has("min_index") {
		if least := c.seen.index(); least > 0 {
			q.Set("min_index", strconv.FormatUint(least, 10))
		}
	}
	if r.timed && !q.Has("timeout") && (!r.read || q.Has("min_index") || q.Has("consistency")) {
		q.Set("timeout", max(limit-min(serverMargin, limit/4), minServerTimes).Round(time.Millisecond).String())
	}
	target := nd.base + r.path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, muster.Errorf(muster.CodeInvalidPath, "the request cannot be made").WithCause(err)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	return req, nil
}
