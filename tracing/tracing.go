// Package tracing sends the spans of a process where the standard OTEL_* variables of
// OpenTelemetry say, by OTLP: OTEL_EXPORTER_OTLP_ENDPOINT and its kin, _PROTOCOL
// (http/protobuf or grpc), _HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
// OTEL_TRACES_SAMPLER, OTEL_SDK_DISABLED. Where they say nothing there is no tracing,
// and it costs nothing.
//
//	_, stop, err := tracing.Start(ctx, tracing.Config{Service: "users"})
//	defer stop()
//
// It is for the main of a program, muster server's own or any other: packages client,
// client/grpcresolver and client/grpcserver make spans by whatever provider the
// program has made the global one. It makes no span itself.
//
// Concurrency: Start is called once, before anything is traced; the SDK's goroutines
// end with stop.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/muster-registry/muster"
)

// flush is how long the last spans are given to leave.
const flush = 2 * time.Second

// Config says whose spans they are.
type Config struct {
	// Service and Version are what the spans say of their process, where OTEL_SERVICE_NAME
	// and OTEL_RESOURCE_ATTRIBUTES say nothing else; Version may be "".
	Service, Version string
	// Logger is told of spans that cannot be exported; nil discards.
	Logger *slog.Logger
}

// wanted reports whether the variables ask for traces: an endpoint is named, or the
// exporter is.
func wanted() (bool, error) {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return false, nil
	}
	switch exporter := os.Getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "none":
		return false, nil
	case "otlp":
		return true, nil
	case "":
		return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "", nil
	default:
		return false, bad("OTEL_TRACES_EXPORTER %q is neither otlp nor none", exporter)
	}
}

func bad(format string, args ...any) error {
	return muster.Errorf(muster.CodeConflictingField, format, args...)
}

// Start makes a tracer provider and a propagator (W3C Trace Context and Baggage) the
// global ones of the process, where the variables ask for traces. stop, which is never
// nil, sends what is left, within 2 s. The error says which variable cannot be used.
func Start(ctx context.Context, cfg Config) (on bool, stop func(), err error) {
	stop = func() {}
	if on, err = wanted(); !on || err != nil {
		return false, stop, err
	}
	logger := cfg.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return false, stop, err
	}
	who := []attribute.KeyValue{attribute.String("service.name", cfg.Service)}
	if cfg.Version != "" {
		who = append(who, attribute.String("service.version", cfg.Version))
	}
	what, err := resource.New(ctx,
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(),
		resource.WithAttributes(who...),
		resource.WithFromEnv()) // which wins
	if err != nil {
		logger.Warn("part of what traces say of this process is missing", "err", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(what))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("traces cannot be exported", "err", err) }))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return true, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flush)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			logger.Warn("the last traces were not exported", "err", err)
		}
	}, nil
}

func newExporter(ctx context.Context) (e *otlptrace.Exporter, err error) {
	protocol := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch protocol {
	case "", "http/protobuf":
		e, err = otlptracehttp.New(ctx)
	case "grpc":
		e, err = otlptracegrpc.New(ctx)
	default:
		return nil, bad("OTEL_EXPORTER_OTLP_PROTOCOL %q is neither http/protobuf nor grpc", protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("making the exporter of traces: %w", err)
	}
	return e, nil
}
