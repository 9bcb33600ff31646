package httpapi

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/muster-registry/muster"
)

// Watches opens streams of changes. Subscribe is called concurrently; an error is
// a *[muster.Error] wherever the caller can do something about it.
type Watches interface {
	Subscribe(ctx context.Context, q muster.WatchQuery) (Stream, error)
}

// Stream is what one watcher is sent. It is used by one goroutine at a time.
type Stream interface {
	// Wait waits until there is something to write. It returns io.EOF after the last
	// message, and the cause of ctx's end.
	Wait(ctx context.Context) error
	// WriteTo writes what there is, in whole messages, and keeps no copy of it.
	WriteTo(w io.Writer) (int64, error)
	Close()
}

const headerLastEventID = "Last-Event-Id"

// The values of the headers of a stream, shared by all.
var (
	typeSSE    = []string{"text/event-stream"}
	typeNDJSON = []string{"application/x-ndjson"}
	// noBuffering asks nginx, which holds back what it passes on otherwise.
	noBuffering = []string{"no"}
)

// getWatch answers GET /v1/watch: a stream of messages that ends when the caller
// goes, the node stops, or the caller does not take what it is sent.
func (s *Server) getWatch(c *call) error {
	q, err := c.watchQuery()
	if err != nil {
		return err
	}
	from := c.remote()
	if !s.streams.enter(from) {
		return muster.Errorf(muster.CodeRateLimited, "%s has %d streams open on this node, which is as many as an address may have", from, s.cfg.StreamsPerAddress).
			WithHint("one stream can carry many services; close some, or ask for a higher --max-streams-per-address").WithRetryAfter(streamRetry)
	}
	leave := func() { s.streams.leave(from) }
	stream, err := s.watches.Subscribe(c.r.Context(), q)
	if err != nil {
		leave()
		return err
	}
	c.waited = true
	h := c.w.Header()
	h[headerType] = typeSSE
	if q.Lines {
		h[headerType] = typeNDJSON
	}
	h["X-Accel-Buffering"] = noBuffering
	if c.r.Method == http.MethodHead {
		stream.Close()
		leave()
		return c.empty(http.StatusOK)
	}
	c.status = http.StatusOK
	c.leave()
	s.startFeed(c, stream, leave)
	return nil
}

// watchQuery reads what to watch, from where, and in which form.
func (c *call) watchQuery() (muster.WatchQuery, error) {
	q := muster.WatchQuery{
		Namespace: c.values.text[paramNamespace], Services: c.values.services, Prefix: c.values.text[paramPrefix],
		Cluster: c.values.text[paramCluster], Lines: wantsLines(c.r.Header["Accept"]),
	}
	var err error
	if q.From, err = c.values.index(paramFrom); err != nil {
		return q, err
	}
	// A browser that reconnects repeats its first URL: what it saw last is the
	// header.
	ids := c.r.Header[headerLastEventID]
	if len(ids) > 1 {
		return q, badHeader("Last-Event-ID", "is given twice")
	}
	if len(ids) == 1 && ids[0] != "" {
		if q.From, err = muster.ParseIndex(ids[0]); err != nil {
			return q, badHeader("Last-Event-ID", "is not the id of a message")
		}
	}
	return q, nil
}

// wantsLines reports whether NDJSON is asked for by name, and events are not
// wanted as much.
func wantsLines(accept []string) bool {
	lines, events := 0.0, 0.0
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			name, rest, _ := strings.Cut(part, ";")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case typeNDJSON[0]:
				lines = max(lines, quality(rest))
			case typeSSE[0]:
				events = max(events, quality(rest))
			}
		}
	}
	return lines > events
}

// quality reads the weight among the parameters of an element of Accept or
// Accept-Encoding (RFC 9110 §12.4.2): 1 where there is none, 0 where it cannot be
// read.
func quality(params string) float64 {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil || !(q >= 0 && q <= 1) { // NaN is neither
				return 0
			}
			return q
		}
	}
	return 1
}
