package main

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// traceSink is a collector of OTLP over HTTP.
type traceSink struct {
	mu       sync.Mutex
	spans    []*trace.Span // guarded by mu
	services []string      // guarded by mu
}

func (s *traceSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body = z
	}
	b, err := io.ReadAll(body)
	var req collector.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(b, &req) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.name" {
				s.services = append(s.services, a.Value.GetStringValue())
			}
		}
		for _, ss := range rs.ScopeSpans {
			s.spans = append(s.spans, ss.Spans...)
		}
	}
}

func (s *traceSink) find(name, traceID string) *trace.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.spans {
		if span.Name == name && (traceID == "" || hex.EncodeToString(span.TraceId) == traceID) {
			return span
		}
	}
	return nil
}

// all returns the spans of a name and kind.
func (s *traceSink) all(name string, kind trace.Span_SpanKind) []*trace.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*trace.Span
	for _, span := range s.spans {
		if span.Name == name && span.Kind == kind {
			found = append(found, span)
		}
	}
	return found
}

// TestTracing: with the standard variables a request is a span of its caller's
// trace, named by its route, with what it proposed below it; streams work beside;
// probes make none.
func TestTracing(t *testing.T) {
	sink := &traceSink{}
	collecting := httptest.NewServer(sink)
	defer collecting.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collecting.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	t.Setenv("OTEL_SERVICE_NAME", "registry-of-a-test")
	p := newCluster(t, 1)[0]
	p.args = append(p.args, "--log-level", "debug")
	p.start()
	p.waitReady("?require=leader")

	stream, err := http.Get(p.url + "/v1/watch?service=web")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	if !lines.Scan() || lines.Text() != "event: snapshot" {
		t.Errorf("a stream begins with %q", lines.Text())
	}

	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	req, err := http.NewRequest("PUT", p.url+"/v1/services/web/instances/w", strings.NewReader(`{"address":"10.0.0.5","port":80,"ttl":"none"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("traceparent", "00-"+id+"-00f067aa0ba902b7-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != 201 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()

	const route = "PUT /v1/services/{service}/instances/{id}"
	deadline := time.Now().Add(patience)
	for sink.find(route, id) == nil || sink.find("cluster.propose", id) == nil {
		if time.Now().After(deadline) {
			t.Fatalf("the spans do not arrive: %v", sink.spans)
		}
		<-time.NewTimer(20 * time.Millisecond).C
	}
	server, below := sink.find(route, id), sink.find("cluster.propose", id)
	if hex.EncodeToString(server.ParentSpanId) != "00f067aa0ba902b7" || string(below.ParentSpanId) != string(server.SpanId) {
		t.Errorf("the spans are not one below the other: %v %v", server, below)
	}
	if !strings.Contains(p.log.String(), "trace_id="+id) {
		t.Error("the log does not name the trace")
	}
	for _, span := range sink.spans {
		if strings.Contains(span.Name, "readyz") {
			t.Errorf("a probe made a span: %s", span.Name)
		}
	}
	if len(sink.services) == 0 || sink.services[0] != "registry-of-a-test" {
		t.Errorf("the service is named %v", sink.services)
	}
}

// TestTracesThroughServices: a call of the gRPC example is one trace, of its caller
// and of its server, whichever protocol the spans leave by.
func TestTracesThroughServices(t *testing.T) {
	sink := &traceSink{}
	collecting := httptest.NewServer(sink)
	defer collecting.Close()
	node := newCluster(t, 1)[0]
	node.start()
	node.waitReady("?require=leader")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collecting.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	registry := strings.TrimPrefix(node.url, "http://")
	for _, program := range []string{"server", "caller"} {
		cmd := exec.Command(example(t, "grpc/"+program), "--registry", registry)
		cmd.Stdout = io.Discard
		begin(t, cmd, &syncBuffer{})
	}
	const method = "users.UserService/GetUser"
	var client, server *trace.Span
	waitFor(t, "the spans of both ends of a call", func() bool {
		for _, c := range sink.all(method, trace.Span_SPAN_KIND_CLIENT) {
			for _, s := range sink.all(method, trace.Span_SPAN_KIND_SERVER) {
				if string(s.ParentSpanId) == string(c.SpanId) {
					client, server = c, s
				}
			}
		}
		return server != nil
	})
	if string(client.TraceId) != string(server.TraceId) {
		t.Errorf("the trace is %x at the caller and %x at the server", client.TraceId, server.TraceId)
	}
	// The server's registration is a span of its own; health checks are none.
	waitFor(t, "the span of a request to the registry", func() bool { return len(sink.all("HTTP POST", trace.Span_SPAN_KIND_CLIENT)) > 0 })
	sink.mu.Lock()
	defer sink.mu.Unlock()
	for _, name := range []string{"users", "users-caller"} {
		if !slices.Contains(sink.services, name) {
			t.Errorf("none of %q is %s", sink.services, name)
		}
	}
	for _, s := range sink.spans {
		if strings.HasPrefix(s.Name, "grpc.health") {
			t.Errorf("a health check made a span: %s", s.Name)
		}
	}
}

func TestTracingRefused(t *testing.T) {
	for variable, value := range map[string]string{"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv(variable, value)
			code, _, errs := command(t, "server", "--data-dir", t.TempDir(), "--api-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0", "--gossip-addr", "127.0.0.1:0")
			if code != exitConfig || !strings.Contains(errs, variable) {
				t.Errorf("exit %d: %s", code, errs)
			}
		})
	}
}
