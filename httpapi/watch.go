package httpapi

import (
	"context"
	"errors"
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

// Stream is what one watcher is sent. It belongs to the goroutine of its request,
// which closes it.
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
// goes, the node stops, or the caller does not take what it is sent. Every write
// is bounded by the connection (see conn).
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
	defer s.streams.leave(from)
	ctx := c.r.Context()
	stream, err := s.watches.Subscribe(ctx, q)
	if err != nil {
		return err
	}
	defer stream.Close()
	c.waited = true
	h := c.w.Header()
	h[headerType] = typeSSE
	if q.Lines {
		h[headerType] = typeNDJSON
	}
	h["X-Accel-Buffering"] = noBuffering
	c.status = http.StatusOK
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	s.feed(c, stream)
	return nil
}

// feed writes what the stream has to tell until it ends. Its own end of the
// connection is how the caller learns of an error here: he comes back with his
// cursor, and is then told.
func (s *Server) feed(c *call, stream Stream) {
	ctx := c.r.Context()
	out := http.NewResponseController(c.w)
	for err := out.Flush(); err == nil; err = out.Flush() {
		if err = stream.Wait(ctx); err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				s.log.Debug("stream ended", "request_id", c.id, "err", err)
			}
			return
		}
		if _, err = stream.WriteTo(c.w); err != nil {
			return
		}
	}
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
