package client

import (
	"net/http"
	"os"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
)

// TracesWanted reports whether the standard variables of OpenTelemetry ask for traces:
// an exporter is named, or an endpoint, and nothing switches them off.
func TracesWanted() bool {
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	named := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	return os.Getenv("OTEL_SDK_DISABLED") != "true" && exporter != "none" && (exporter != "" || named)
}

// Propagator is how a trace is passed on: W3C Trace Context and Baggage.
func Propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// traced makes a span of every request that rt carries, by the global tracer
// provider of OpenTelemetry, and passes the trace on, where the standard variables
// ask for traces. Else it is rt itself, and costs nothing.
func traced(rt http.RoundTripper) http.RoundTripper {
	if !TracesWanted() {
		return rt
	}
	return otelhttp.NewTransport(rt, otelhttp.WithPropagators(Propagator()))
}
