package grpcserver

import (
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"google.golang.org/grpc"

	"github.com/muster-registry/muster/client"
)

// Options makes a span of every call but those of the health service, by the global
// tracer provider of OpenTelemetry, below the span of its caller, where the standard
// variables ask for traces. Else it is empty, and costs nothing.
func Options() []grpc.ServerOption {
	if !client.TracesWanted() {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithPropagators(client.Propagator()), otelgrpc.WithFilter(filters.Not(filters.HealthCheck()))))}
}
