package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// tryFor is what a request asks of the server by ?timeout=; patience is how long
	// its client waits for the answer.
	tryFor   = 2 * time.Second
	patience = 3 * time.Second
	// dialFor is how long a connection may take to come about.
	dialFor = time.Second
	// shun is for how long a client goes to other nodes after one did not answer.
	shun = 4 * time.Second
)

// newTransport makes the connections of one client: no proxy, no retry that it could
// hide (net/http repeats by itself only what was never sent, or a GET).
func newTransport(keep bool) *http.Transport {
	return &http.Transport{
		DialContext:        (&net.Dialer{Timeout: dialFor}).DialContext,
		DisableKeepAlives:  !keep,
		DisableCompression: true,
	}
}

// client is one user of the registry: it does one thing at a time.
type client struct {
	name    string
	load    *Load
	rnd     *rand.Rand
	http    *http.Client
	shunned []time.Time // by node: until when
	// seen is the highest index any answer told.
	seen uint64
	ops  int
}

func (l *Load) newClient(name string) *client {
	return &client{
		name: name, load: l, http: &http.Client{Transport: newTransport(true)},
		rnd:     rand.New(rand.NewPCG(l.Seed, hashOf([]byte(name)))),
		shunned: make([]time.Time, len(l.URLs)),
	}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// node chooses one by chance; mostly not one that has just not answered.
func (c *client) node() int {
	n := c.rnd.IntN(len(c.load.URLs))
	for range 3 {
		if time.Now().After(c.shunned[n]) || c.rnd.IntN(20) == 0 {
			break
		}
		n = c.rnd.IntN(len(c.load.URLs))
	}
	return n
}

// op is a new name for a write.
func (c *client) op() string {
	c.ops++
	return fmt.Sprintf("%s.%d", c.name, c.ops)
}

// request is what an attempt sends.
type request struct {
	method, path string
	query        []string // key=value, already escaped
	header       [][2]string
	body         string
	within       time.Duration // 0: patience
}

// answer is what came back.
type answer struct {
	header http.Header
	body   []byte
}

// try makes one attempt and fills in r's times and outcome. It does not add r to the
// history: the caller first notes what the answer says.
func (c *client) try(ctx context.Context, r *Record, q request) (a answer) {
	if q.within == 0 {
		q.within = patience
	}
	ctx, cancel := context.WithTimeout(ctx, q.within)
	defer cancel()
	var got atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { got.Store(true) }})
	url := c.load.URLs[r.Node] + q.path
	if len(q.query) > 0 {
		url += "?" + strings.Join(q.query, "&")
	}
	var body io.Reader
	if q.body != "" {
		body = strings.NewReader(q.body)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, url, body)
	if err != nil {
		r.Outcome, r.Error = Fail, err.Error()
		return a
	}
	for _, h := range q.header {
		req.Header.Set(h[0], h[1])
	}
	now := time.Now()
	r.Client, r.Wall, r.Call = c.name, now.UnixNano(), c.load.History.Since(now)
	resp, err := c.http.Do(req)
	if err == nil {
		a.header = resp.Header
		a.body, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		r.Status = resp.StatusCode
	}
	r.Return = c.load.History.Since(time.Now())
	switch {
	case err != nil && !got.Load():
		r.Outcome, r.Error = Fail, brief(err)
	case err != nil:
		r.Outcome, r.Error = Unknown, brief(err)
	default:
		c.judge(r, a)
	}
	if err != nil {
		c.shunned[r.Node] = time.Now().Add(shun)
	}
	return a
}

// judge reads the outcome off an answer.
func (c *client) judge(r *Record, a answer) {
	r.Index, _ = strconv.ParseUint(a.header.Get("Muster-Index"), 10, 64)
	r.Stale, _ = strconv.ParseInt(a.header.Get("Muster-Stale-Ms"), 10, 64)
	c.seen = max(c.seen, r.Index)
	if r.Status < 300 {
		r.Outcome = OK
		return
	}
	var p struct{ Code, Detail string }
	if err := json.Unmarshal(a.body, &p); err != nil || p.Code == "" {
		r.Outcome, r.Error = Unknown, "no problem: "+clipped(a.body)
		return
	}
	r.Code, r.Outcome = p.Code, Fail
	switch muster.Code(p.Code) {
	case muster.CodeOutcomeUnknown, muster.CodeInternal:
		r.Outcome, r.Error = Unknown, p.Detail
	case muster.CodeNoLeader, muster.CodeShuttingDown, muster.CodeCatchingUp:
		c.shunned[r.Node] = time.Now().Add(time.Duration(c.rnd.IntN(1000)) * time.Millisecond)
	}
}

// brief is an error without the address that every one of them repeats.
func brief(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	text := err.Error()
	if n := strings.LastIndex(text, `": `); n >= 0 {
		text = text[n+3:]
	}
	return text
}

func clipped(b []byte) string { return string(b[:min(len(b), 200)]) }

// pause waits for d, or until ctx ends, which it reports.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// about is d, give or take a third.
func (c *client) about(d time.Duration) time.Duration {
	return d*2/3 + time.Duration(c.rnd.Int64N(int64(d*2/3)+1))
}
