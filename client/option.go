package client

import (
	"net/http"
	"strconv"
	"time"

	"github.com/muster-registry/muster"
)

// Option changes one call. An option that its route does not know is refused by
// the registry as unknown_parameter.
type Option func(*request)

// In names the namespace of the call.
func In(namespace string) Option { return func(r *request) { r.query.Set("namespace", namespace) } }

// Reason is kept in the journal beside a write, at most muster.MaxReasonLen bytes.
func Reason(text string) Option { return func(r *request) { r.query.Set("reason", text) } }

// Linearizable asks a read for every write that was acknowledged before it began.
func Linearizable() Option { return func(r *request) { r.query.Set("consistency", "linearizable") } }

// MaxStale refuses an answer (too_stale) rather than be older; every node is tried.
func MaxStale(d time.Duration) Option {
	return func(r *request) { r.query.Set("max_stale", d.String()) }
}

// MinIndex asks a read for that index at least, instead of the latest the client
// has seen.
func MinIndex(index uint64) Option {
	return func(r *request) { r.query.Set("min_index", strconv.FormatUint(index, 10)) }
}

// After makes a read a long poll: it answers when there is something newer than
// index, or after wait (0 is muster.DefaultWait, at most muster.MaxWait). The
// context, if it has a deadline, has to allow for the wait and its jitter of a
// sixteenth.
func After(index uint64, wait time.Duration) Option {
	if wait <= 0 {
		wait = muster.DefaultWait
	}
	wait = min(wait, muster.MaxWait)
	return func(r *request) {
		r.query.Set("index", strconv.FormatUint(index, 10))
		r.query.Set("wait", wait.String())
		r.hold = wait + wait/16
	}
}

// Where narrows a list of instances.
func Where(q muster.Query) Option {
	return func(r *request) {
		for k, v := range q.Values() {
			r.query[k] = v
		}
	}
}

// Prefix narrows a list of services to those whose names begin with it.
func Prefix(text string) Option { return func(r *request) { r.query.Set("prefix", text) } }

// Info stores in i how current the answer to a read is.
func Info(i *muster.ReadInfo) Option { return func(r *request) { r.info = i } }

// IfAbsent asks of a write that there is no such instance.
func IfAbsent() Option { return func(r *request) { r.header["If-None-Match"] = []string{"*"} } }

// IfUnchanged asks of a write that the stored instance is still i, as the registry
// answered it.
func IfUnchanged(i *muster.Instance) Option {
	tag := `"` + i.ETag() + `"`
	if i.Place < 0 {
		tag = `"` + strconv.FormatUint(i.ModifyIndex, 10) + `"`
	}
	return func(r *request) { r.header["If-Match"] = []string{tag} }
}

// Incarnation fences a heartbeat or a deregistration: it is refused where a higher
// incarnation has registered since.
func Incarnation(n uint64) Option {
	return func(r *request) { r.query.Set("incarnation", strconv.FormatUint(n, 10)) }
}

// newCall makes a request; it is safe to repeat unless it is changed.
func (c *Client) newCall(method, path string, opts []Option) *request {
	r := &request{
		method: method, path: path, query: map[string][]string{}, header: http.Header{},
		read: method == http.MethodGet, timed: true, repeatable: true,
	}
	for _, o := range opts {
		o(r)
	}
	return r
}

// inNamespace names the client's namespace where no option names another.
func (r *request) inNamespace(c *Client) *request {
	if !r.query.Has("namespace") && c.cfg.Namespace != muster.DefaultNamespace {
		r.query.Set("namespace", c.cfg.Namespace)
	}
	return r
}
