package httpapi

import (
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/muster-registry/muster/problem"
)

// Access says which requests are logged at level info. At level debug all of them
// are, as they are without it.
type Access struct {
	// On turns the access log on.
	On bool
	// Sample is the share of the requests that are logged, from 0 to 1. An answer of
	// 500 and above, and one that is slow, is logged always.
	Sample float64
	// Slow is from how long on an answer is slow; long polls, streams and backups take
	// their time on purpose and never are. 0: none is.
	Slow time.Duration
}

// samples decides on one request, by chance: once for each.
func (a Access) samples() bool {
	return a.On && (a.Sample >= 1 || a.Sample > 0 && rand.Float64() < a.Sample)
}

// inSample says whether the sample has the request. A stream asks before its answer
// has ended, and must be told the same.
func (c *call) inSample() bool {
	if !c.decided {
		c.decided, c.sampled = true, c.s.cfg.Access.samples()
	}
	return c.sampled
}

// access writes the line of a request that has been answered. It names the route and
// not the path, whose text is the caller's.
func (s *Server) access(c *call, took time.Duration) {
	a := &s.cfg.Access
	level := slog.LevelDebug
	if a.On && (c.status >= http.StatusInternalServerError || a.Slow > 0 && took >= a.Slow && !c.waited || c.inSample()) {
		level = slog.LevelInfo
	}
	if !s.log.Enabled(c.r.Context(), level) {
		return
	}
	class := unmatched
	if c.route != nil {
		class = c.route.class.String()
	}
	s.log.LogAttrs(c.r.Context(), level, "request", c.ids(),
		slog.String("method", c.method()), slog.String("route", c.pattern()), slog.String("class", class), slog.Int("status", c.status),
		slog.Duration("duration", took), slog.Int64("bytes", c.sent), slog.String("actor", c.actor()))
}

// accessRefused writes the line of a request that no handler sees: net/http could
// not read it, or its connection is one too many.
func (s *Server) accessRefused(id string, p *problem.Problem, from net.Addr) {
	actor := "ip:unknown"
	if at := addressOf(from.String()); at.IsValid() {
		actor = "ip:" + at.String()
	}
	args := []any{"request_id", id, "route", unmatched, "status", p.Status, "code", string(p.Code), "actor", actor}
	if a := &s.cfg.Access; a.On && (p.Status >= http.StatusInternalServerError || a.samples()) {
		s.log.Info("request refused", args...)
		return
	}
	s.log.Debug("request refused", args...)
}

// ids are what a line is found by: the id of its request, and of the trace if there
// is one. They stand among the line's own keys.
func (c *call) ids() slog.Attr { return requestIDs(c.id, c.traceID()) }

func requestIDs(request, trace string) slog.Attr {
	ids := []slog.Attr{slog.String("request_id", request)}
	if trace != "" {
		ids = append(ids, slog.String("trace_id", trace))
	}
	return slog.Attr{Value: slog.GroupValue(ids...)}
}

// pattern is the route of a request as the table writes it.
func (c *call) pattern() string {
	if c.route == nil {
		return unmatched
	}
	return c.route.path
}

// method is that of a request if there is such a one, for nothing else of the
// caller's is to stand in a fixed key.
func (c *call) method() string {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodOptions, http.MethodPatch:
		return c.r.Method
	}
	return unmatched
}
