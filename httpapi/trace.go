package httpapi

import (
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// traced wraps the server so that every request is a span of the global tracer
// provider, within the trace that its traceparent names (W3C Trace Context). What
// only asks whether the node is well is left out.
func (s *Server) traced() http.Handler {
	return otelhttp.NewHandler(s, "muster", otelhttp.WithFilter(func(r *http.Request) bool {
		switch r.URL.Path {
		case "/livez", "/readyz", "/healthz", "/metrics":
			return false
		}
		return true
	}))
}

// name gives the span of a request, if it has one, the name of its route.
func (c *call) name() {
	if !c.s.cfg.Tracing {
		return
	}
	span := trace.SpanFromContext(c.r.Context())
	if !span.IsRecording() {
		return
	}
	span.SetName(c.r.Method + " " + c.route.path)
	span.SetAttributes(attribute.String("http.route", c.route.path), attribute.String("muster.request_id", c.id))
}

// traceID is the id of the trace that a request is part of; "" for none.
func (c *call) traceID() string {
	if !c.s.cfg.Tracing {
		return ""
	}
	if sc := trace.SpanContextFromContext(c.r.Context()); sc.IsValid() {
		return sc.TraceID().String()
	}
	return ""
}
