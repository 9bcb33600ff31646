package grpcresolver_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/muster-registry/muster/client/grpcresolver"
)

// TestTracesArePassedOn: where the standard variables ask for it, and only there, a
// server is told which trace a call belongs to.
func TestTracesArePassedOn(t *testing.T) {
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	traceID, err := trace.TraceIDFromHex(id)
	if err != nil {
		t.Fatal(err)
	}
	caller := trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled, Remote: true})
	for endpoint, passed := range map[string]bool{"http://127.0.0.1:1": true, "": false} {
		t.Run(endpoint, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			parents := make(chan []string, 1)
			g := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
				md, _ := metadata.FromIncomingContext(stream.Context())
				parents <- md["traceparent"]
				return stream.SendMsg(&grpc_health_v1.HealthCheckResponse{})
			}))
			served := make(chan error, 1)
			go func() { served <- g.Serve(l) }()
			defer func() { g.Stop(); <-served }()
			n := newNode(t)
			n.show("", nil, up("a", l.Addr().(*net.TCPAddr).Port))
			conn := dial(t, "muster:///users", grpcresolver.DialOptions(newClient(t, n))...)
			ctx, cancel := context.WithTimeout(trace.ContextWithSpanContext(t.Context(), caller), 30*time.Second)
			defer cancel()
			err = conn.Invoke(ctx, "/users.UserService/GetUser", &grpc_health_v1.HealthCheckRequest{}, &grpc_health_v1.HealthCheckResponse{}, grpc.WaitForReady(true))
			if err != nil {
				t.Fatal(err)
			}
			if got := <-parents; strings.Contains(strings.Join(got, ""), id) != passed {
				t.Errorf("traceparent %q", got)
			}
		})
	}
}
