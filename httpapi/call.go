package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

// The names of the headers of an answer, in the form net/http keeps them, so that
// they can be set without being brought into it each time.
const (
	headerAllow        = "Allow"
	headerCacheControl = "Cache-Control"
	headerLength       = "Content-Length"
	headerType         = "Content-Type"
	headerETag         = "Etag"
	headerEncoding     = "Content-Encoding"
	headerVary         = "Vary"
	headerLocation     = "Location"
	headerRetryAfter   = "Retry-After"
	headerSniff        = "X-Content-Type-Options"

	headerIndex     = "Muster-Index"
	headerNode      = "Muster-Node"
	headerLeader    = "Muster-Leader"
	headerCluster   = "Muster-Cluster"
	headerStale     = "Muster-Stale-Ms"
	headerRequestID = "Muster-Request-Id"
	headerTicket    = "Muster-Ticket"
)

// The values that every answer shares. net/http only reads them.
var (
	noStore     = []string{"no-store"}
	noSniff     = []string{"nosniff"}
	typeJSON    = []string{"application/json"}
	typeProblem = []string{problem.ContentType}
	typeYAML    = []string{"application/yaml"}

	typeSnapshot = []string{"application/octet-stream"}
	typeText     = []string{"text/plain; charset=utf-8"}
)

// call is one request on its way through the server. It belongs to the goroutine
// of its request.
type call struct {
	s      *Server
	w      http.ResponseWriter
	r      *http.Request
	route  *route // nil until matched, and where nothing matches
	path   map[string]string
	values *values
	id     string
	// status is that of the answer; 0 until there is one.
	status int
	// sent is how many bytes of the answer's body were written.
	sent int64
	// decided says that the sample of the access log has been taken, sampled that it
	// has the request.
	decided, sampled bool
	// reads says that the request changes nothing of what is registered, whatever
	// its method.
	reads bool
	// waited says that the answer was held back on purpose, so that its time is
	// not the server's.
	waited bool
	// gate is where the request has its place; nil where it was not let in. left says
	// that it has given it up.
	gate *gate
	left atomic.Bool

	// bodyRead says that all of the body was read, bodyBroken that the rest of it will
	// not be.
	bodyRead, bodyBroken bool

	// texts and n are the backing of header values made for this answer: one
	// allocation instead of one a header.
	texts [10]string
	n     int
}

// set sets a header of the answer; key is in canonical form.
func (c *call) set(key, value string) {
	if c.n == len(c.texts) {
		c.w.Header().Set(key, value)
		return
	}
	c.texts[c.n] = value
	c.w.Header()[key] = c.texts[c.n : c.n+1 : c.n+1]
	c.n++
}

// begin sets what every answer carries.
func (c *call) begin() {
	h := c.w.Header()
	h[headerCacheControl] = noStore
	h[headerSniff] = noSniff
	h[headerNode] = c.s.node
	leader, _ := c.s.cluster.Leader()
	c.set(headerLeader, leader)
	c.set(headerCluster, c.s.cluster.ClusterID())
	c.set(headerRequestID, c.id)
}

// setIndex sets Muster-Index, which is never 0.
func (c *call) setIndex(index uint64) {
	if index > 0 {
		c.set(headerIndex, strconv.FormatUint(index, 10))
	}
}

// setRead sets what the answer to a read carries. A ReadInfo without an index is
// that of a read that came to nothing.
func (c *call) setRead(info muster.ReadInfo) {
	if info.Index > 0 {
		c.setIndex(info.Index)
		c.set(headerStale, strconv.FormatInt(info.Stale.Milliseconds(), 10))
	}
}

// countedBody is below what net/http holds back of an answer: a shorter body it
// counts itself, at a lower price than that of one more header.
const countedBody = 2000

// leave gives up the place of a request that is no more work.
func (c *call) leave() {
	if c.gate != nil && !c.left.Swap(true) {
		c.gate.leave()
	}
}

// largeBody is what a system takes from a writer at once. writeHold is how long the
// writing of more is work of ours: from then on it is the reader who is slow, and he
// must not keep others out.
const (
	largeBody = 64 << 10
	writeHold = 50 * time.Millisecond
)

// deliver writes the body of an answer.
func (c *call) deliver(body []byte) {
	if len(body) > largeBody {
		defer time.AfterFunc(writeHold, c.leave).Stop()
	} else {
		c.leave()
	}
	n, _ := c.w.Write(body) // the client may have gone: nothing is left to be done about it
	c.sent += int64(n)
}

// send writes the answer. The body is not kept.
func (c *call) send(status int, contentType []string, body []byte) error {
	c.w.Header()[headerType] = contentType
	if len(body) >= countedBody {
		c.set(headerLength, strconv.Itoa(len(body)))
	}
	c.status = status
	c.boundBody()
	c.w.WriteHeader(status)
	c.deliver(body)
	return nil
}

// empty writes an answer without a body.
func (c *call) empty(status int) error {
	c.status = status
	c.boundBody()
	c.w.WriteHeader(status)
	return nil
}

// json writes v.
func (c *call) json(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	return c.send(status, typeJSON, body)
}

// fail renders err. An error that is the registry's own is told to the log.
func (c *call) fail(err error) {
	err = c.coded(err)
	p := problem.New(err, c.r.URL.EscapedPath(), c.id)
	if p.Code == muster.CodeInternal {
		c.s.log.Error("request failed", c.ids(), "method", c.method(), "route", c.pattern(), "err", err)
	}
	if after := p.RetryAfter(); after != "" {
		c.set(headerRetryAfter, after)
	}
	_ = c.send(p.Status, typeProblem, p.JSON())
}

// coded gives the errors of contexts, which have no code, the meaning they have
// for a caller.
func (c *call) coded(err error) error {
	if _, ok := errors.AsType[*muster.Error](err); ok {
		return err
	}
	switch reads := c.reads || c.r.Method == http.MethodGet || c.r.Method == http.MethodHead; {
	case errors.Is(err, context.Canceled) && reads:
		return muster.Errorf(muster.CodeShuttingDown, "this node is shutting down").WithHint("ask another node").WithCause(err)
	case errors.Is(err, context.DeadlineExceeded) && reads:
		return muster.Errorf(muster.CodeOverloaded, "there was no answer within the time given").
			WithHint("try again, with a longer ?timeout=").WithCause(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return muster.Errorf(muster.CodeOutcomeUnknown, "the time ran out before it was known whether the write happened").
			WithHint("register, deregister and heartbeat are safe to repeat").WithCause(err)
	}
	return err
}

// caller is who makes the request. Headers are never believed.
func (c *call) caller() (muster.Caller, error) {
	who := muster.Caller{Actor: c.actor()}
	if !c.values.has(paramReason) {
		return who, nil
	}
	reason, err := muster.CleanReason(c.values.text[paramReason])
	if err != nil {
		return who, c.values.bad(paramReason, err)
	}
	who.Reason = reason
	return who, nil
}

// actor is whom the journal and the log name.
func (c *call) actor() string { return "ip:" + c.clientIP() }

func (c *call) clientIP() string {
	if from := c.remote(); from.IsValid() {
		return from.String()
	}
	return "unknown"
}

// remote is the address the request comes from; invalid where that is not known.
func (c *call) remote() netip.Addr {
	return addressOf(c.r.RemoteAddr)
}

func (c *call) serviceKey() muster.ServiceKey {
	return muster.ServiceKey{Namespace: c.values.text[paramNamespace], Service: c.path["service"]}
}

func (c *call) instanceKey() muster.InstanceKey {
	return muster.InstanceKey{Namespace: c.values.text[paramNamespace], Service: c.path["service"], ID: c.path["id"]}
}

// readContext reads how current an answer has to be, and bounds a read that has to
// ask other nodes by its timeout.
func (c *call) readContext() (context.Context, context.CancelFunc, muster.ReadOptions, error) {
	o, timeout, bounded, err := c.values.readOptions()
	if err != nil || !bounded {
		return c.r.Context(), func() {}, o, err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), timeout)
	return ctx, cancel, o, nil
}

// writeContext bounds a write by its timeout.
func (c *call) writeContext() (context.Context, context.CancelFunc, error) {
	d, err := c.values.timeout()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(muster.WithRequestID(c.r.Context(), c.id), d)
	return ctx, cancel, nil
}

// settle runs a write as the caller, within its timeout, and notes its index; the
// caller of settle answers.
func (c *call) settle(do func(context.Context, muster.Caller) (muster.Written, error)) (muster.Written, error) {
	who, err := c.caller()
	if err != nil {
		return muster.Written{}, err
	}
	ctx, cancel, err := c.writeContext()
	if err != nil {
		return muster.Written{}, err
	}
	defer cancel()
	w, err := do(ctx, who)
	c.setIndex(w.Index)
	return w, err
}

// condition reads If-Match and If-None-Match of a write.
func (c *call) condition() (muster.Condition, error) {
	var cond muster.Condition
	if tags := c.r.Header["If-None-Match"]; len(tags) > 0 {
		if len(tags) > 1 || strings.TrimSpace(tags[0]) != "*" {
			return cond, badHeader("If-None-Match", "on a write it takes only *, which asks that there is no such instance")
		}
		cond.Absent = true
	}
	tags := c.r.Header["If-Match"]
	if len(tags) == 0 {
		return cond, nil
	}
	if cond.Absent {
		return cond, muster.Errorf(muster.CodeConflictingField, "If-Match and If-None-Match: * cannot both hold")
	}
	const one = "it takes one entity tag as an answer's ETag gave it, or a modify_index in quotes"
	tag := strings.TrimSpace(tags[0])
	if len(tags) > 1 || len(tag) < 3 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		return cond, badHeader("If-Match", one)
	}
	var err error
	if cond.ModifyIndex, cond.Place, err = muster.ParseETag(tag[1 : len(tag)-1]); err != nil || cond.ModifyIndex == 0 {
		return cond, badHeader("If-Match", one)
	}
	return cond, nil
}

func badHeader(name, why string) error {
	return muster.Errorf(muster.CodeInvalidIndex, "%s: %s", name, why)
}

// unchanged reports whether the caller has what bears this entity tag already
// (If-None-Match of a read; tags are compared weakly, as RFC 9110 asks).
func (c *call) unchanged(etag string) bool {
	for _, line := range c.r.Header["If-None-Match"] {
		for tag := range strings.SplitSeq(line, ",") {
			if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == etag || tag == "*" {
				return true
			}
		}
	}
	return false
}
