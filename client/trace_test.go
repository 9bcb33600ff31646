package client_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/muster-registry/muster/client"
)

// TestTracesArePassedOn: where the standard variables ask for it, and only there, a
// node is told which trace a call belongs to.
func TestTracesArePassedOn(t *testing.T) {
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	traceID, err := trace.TraceIDFromHex(id)
	if err != nil {
		t.Fatal(err)
	}
	caller := trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled, Remote: true})
	for name, c := range map[string]struct {
		endpoint, disabled string
		passed             bool
	}{"asked for": {"http://127.0.0.1:1", "", true}, "not asked for": {"", "", false}, "disabled": {"http://127.0.0.1:1", "true", false}} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.endpoint)
			t.Setenv("OTEL_SDK_DISABLED", c.disabled)
			var got string
			node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r.Header.Get("traceparent")
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Muster-Index", "1")
				_, _ = w.Write([]byte(`{"services":[]}`)) // the client says what is missing
			}))
			defer node.Close()
			cl, err := client.New(client.Config{Addrs: []string{node.URL}})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			if _, err := cl.Services(trace.ContextWithSpanContext(t.Context(), caller)); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(got, id) != c.passed {
				t.Errorf("traceparent %q", got)
			}
		})
	}
}
