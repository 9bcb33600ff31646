package grpcresolver

import (
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"google.golang.org/grpc"

	"github.com/muster-registry/muster/client"
)

// traced makes a span of every call but those of the health service, by the global
// tracer provider of OpenTelemetry, and passes the trace on in the metadata (W3C Trace
// Context), where the standard variables ask for traces. Else it is empty, and costs
// nothing.
func traced() []grpc.DialOption {
	if !client.TracesWanted() {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(
		otelgrpc.WithPropagators(client.Propagator()), otelgrpc.WithFilter(filters.Not(filters.HealthCheck()))))}
}
