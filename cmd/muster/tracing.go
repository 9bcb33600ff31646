package main

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
)

// tracingFlush is how long the last spans are given to leave.
const tracingFlush = 2 * time.Second

// tracingWanted reports whether the standard variables of OpenTelemetry ask for
// traces: an endpoint is named, or the exporter is.
func tracingWanted() (bool, error) {
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
		return false, configError("OTEL_TRACES_EXPORTER %q is neither otlp nor none", exporter)
	}
}

// startTracing sends the spans of this process where the standard OTEL_* variables
// say, by OTLP. Where they say nothing there is no tracing, and it costs nothing.
func startTracing(ctx context.Context, logger *slog.Logger) (on bool, stop func(), err error) {
	stop = func() {}
	if on, err = tracingWanted(); !on || err != nil {
		return false, stop, err
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return false, stop, err
	}
	what, err := resource.New(ctx,
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(),
		resource.WithAttributes(attribute.String("service.name", "muster"), attribute.String("service.version", version)),
		resource.WithFromEnv()) // which wins
	if err != nil {
		logger.Warn("part of what traces say of this process is missing", "err", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(what))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("traces cannot be exported", "err", err) }))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return true, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracingFlush)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			logger.Warn("the last traces were not exported", "err", err)
		}
	}, nil
}

func newExporter(ctx context.Context) (*otlptrace.Exporter, error) {
	protocol := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch protocol {
	case "", "http/protobuf":
		e, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("making the exporter of traces: %w", err)
		}
		return e, nil
	case "grpc":
		e, err := otlptracegrpc.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("making the exporter of traces: %w", err)
		}
		return e, nil
	}
	return nil, configError("OTEL_EXPORTER_OTLP_PROTOCOL %q is neither http/protobuf nor grpc", protocol)
}
