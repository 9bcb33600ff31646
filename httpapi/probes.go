package httpapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/muster-registry/muster"
)

// health is what a probe answers.
type health struct {
	Status string        `json:"status"`
	Checks []healthCheck `json:"checks,omitempty"`
}

type healthCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// getLive answers GET /livez: the process works. It asks nobody.
func (s *Server) getLive(c *call) error { return c.json(http.StatusOK, health{Status: "ok"}) }

// getReady answers GET /readyz and /healthz: whether this node answers reads, and
// with ?require=leader whether it could write.
func (s *Server) getReady(c *call) error {
	requireLeader := false
	if c.values.has(paramRequire) {
		if what := c.values.text[paramRequire]; what != "leader" {
			return badParam(muster.CodeUnknownParameter, "require", "", "%q is not leader, the only thing that can be required", clip(what))
		}
		requireLeader = true
	}
	verbose, _, err := c.values.flag(paramVerbose, muster.CodeUnknownParameter)
	if err != nil {
		return err
	}
	stale, ready := s.cluster.Freshness()
	leader, _ := s.cluster.Leader()
	switch {
	case s.isStopping():
		return muster.Errorf(muster.CodeShuttingDown, "this node is shutting down")
	case !ready:
		return muster.Errorf(muster.CodeCatchingUp, "this node has started and has not yet caught up with a leader: %s", s.cluster.Startup()).WithHint(
			"the leader it knows: %q", leader)
	case requireLeader && leader == "":
		return muster.Errorf(muster.CodeNoLeader, "this node knows no leader; it answers reads that are %s old", stale.Round(time.Millisecond))
	}
	h := health{Status: "ok"}
	if verbose {
		h.Checks = []healthCheck{
			{"caught_up", true, fmt.Sprintf("answers reads that are at most %s old", stale.Round(time.Millisecond))},
			{"leader", leader != "", fmt.Sprintf("knows the leader %q", leader)},
		}
	}
	return c.json(http.StatusOK, h)
}

// newMetricsPage is the page of GET /metrics.
func newMetricsPage(g prometheus.Gatherer, log *slog.Logger) http.Handler {
	if g == nil {
		g = prometheus.NewRegistry()
	}
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError),
	})
}

// statusWriter remembers the status and the length of a page that others write.
type statusWriter struct {
	http.ResponseWriter
	c *call
}

func (w statusWriter) WriteHeader(status int) {
	w.c.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w statusWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.c.sent += int64(n)
	return n, err
}

// getMetrics answers GET /metrics in Prometheus' text format.
func (s *Server) getMetrics(c *call) error {
	c.status = http.StatusOK
	c.endBody()
	s.metricsPage.ServeHTTP(statusWriter{c.w, c}, c.r)
	return nil
}
