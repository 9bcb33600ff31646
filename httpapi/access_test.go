package httpapi_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster/httpapi"
)

// logBook keeps the lines of a log, as JSON.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines are those of one message, as what their keys say.
func (b *logBook) lines(t *testing.T, msg string) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []map[string]any
	for line := range strings.Lines(b.buf.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if v["msg"] == msg {
			out = append(out, v)
		}
	}
	return out
}

func withAccess(t *testing.T, level slog.Level, a httpapi.Access) (*fixture, *logBook) {
	t.Helper()
	book := &logBook{}
	f := newFixture(t, func(cfg *httpapi.Config, deps *httpapi.Deps) {
		cfg.Access = a
		deps.Logger = slog.New(slog.NewJSONHandler(book, &slog.HandlerOptions{Level: level}))
	})
	return f, book
}

// send sends one request to the server's handler.
func send(t *testing.T, f *fixture, method, target, body string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host, r.RemoteAddr = f.addr, "192.0.2.9:5000"
	for name, values := range header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	w := httptest.NewRecorder()
	f.server.Handler().ServeHTTP(w, r)
	return w.Result()
}

// TestAccessLine: a line has the fixed keys, the pattern of the route and never the
// text of the path, and the length of the body that was sent.
func TestAccessLine(t *testing.T) {
	f, book := withAccess(t, slog.LevelInfo, httpapi.Access{On: true, Sample: 1})
	const secret = "s3cret-in-a-path"
	resp := send(t, f, "PUT", "/v1/services/web/instances/"+secret+"?reason=hush", `{"address":"10.0.0.5","port":80,"meta":{"k":"hidden-value"}}`,
		http.Header{"Muster-Request-Id": {"r-77"}, "Authorization": {"Bearer mst_hidden"}})
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 201 {
		t.Fatalf("got %d %s %v", resp.StatusCode, body, err)
	}
	lines := book.lines(t, "request")
	if len(lines) != 1 {
		t.Fatalf("got %d lines of requests, want 1: %s", len(lines), book.buf.String())
	}
	for key, want := range map[string]any{
		"level": "INFO", "request_id": "r-77", "method": "PUT", "route": "/v1/services/{service}/instances/{id}", "class": "write",
		"status": 201.0, "bytes": float64(len(body)), "actor": "ip:192.0.2.9",
	} {
		if lines[0][key] != want {
			t.Errorf("%s: got %v, want %v", key, lines[0][key], want)
		}
	}
	if d, ok := lines[0]["duration"].(float64); !ok || d <= 0 {
		t.Errorf("got the duration %v", lines[0]["duration"])
	}
	for _, hidden := range []string{secret, "hush", "hidden-value", "mst_hidden"} {
		if strings.Contains(book.buf.String(), hidden) {
			t.Errorf("the log shows %q:\n%s", hidden, book.buf.String())
		}
	}

	send(t, f, "BREW", "/nothing/like%20it", "", nil)
	if lines = book.lines(t, "request"); len(lines) != 2 || lines[1]["route"] != "none" || lines[1]["method"] != "none" {
		t.Errorf("what matches no route: got %v", lines)
	}
}

// TestAccessLogSample: a sample of nothing leaves out what went well, heartbeats as
// all else, and keeps what did not.
func TestAccessLogSample(t *testing.T) {
	f, book := withAccess(t, slog.LevelInfo, httpapi.Access{On: true, Sample: 0, Slow: time.Hour})
	for range 50 {
		send(t, f, "GET", "/v1/services", "", nil)
		send(t, f, "PUT", "/v1/services/web/instances/a/heartbeat", "", nil)
	}
	if lines := book.lines(t, "request"); len(lines) != 0 {
		t.Fatalf("got %v, want no line", lines)
	}
	f.cluster.set("", false)
	if resp := send(t, f, "GET", "/readyz", "", nil); resp.StatusCode != 503 {
		t.Fatalf("got %d, want 503", resp.StatusCode)
	}
	if lines := book.lines(t, "request"); len(lines) != 1 || lines[0]["status"] != 503.0 {
		t.Errorf("got %v, want the line of the 503", lines)
	}

	f, book = withAccess(t, slog.LevelInfo, httpapi.Access{On: true, Sample: .5})
	for range 400 {
		send(t, f, "GET", "/livez", "", nil)
	}
	// 400 throws of a coin: outside of this in fewer than one of 10^12 runs.
	if n := len(book.lines(t, "request")); n < 125 || n > 275 {
		t.Errorf("got %d lines of 400, want about a half", n)
	}

	f, book = withAccess(t, slog.LevelInfo, httpapi.Access{On: true, Slow: 1})
	send(t, f, "GET", "/livez", "", nil)
	send(t, f, "GET", "/v1/services/none?index=5&wait=1ms", "", nil)
	if lines := book.lines(t, "request"); len(lines) != 1 || lines[0]["route"] != "/livez" {
		t.Errorf("got %v, want the slow one alone: a long poll takes its time", lines)
	}
}

// TestAccessLogOff: without the access log requests show at level debug alone.
func TestAccessLogOff(t *testing.T) {
	for level, want := range map[slog.Level]int{slog.LevelInfo: 0, slog.LevelDebug: 1} {
		f, book := withAccess(t, level, httpapi.Access{Sample: 1, Slow: 1})
		send(t, f, "GET", "/v1/limits", "", nil)
		lines := book.lines(t, "request")
		if len(lines) != want {
			t.Errorf("at level %s: got %d lines, want %d", level, len(lines), want)
		}
		if want == 1 && len(lines) == 1 && lines[0]["level"] != "DEBUG" {
			t.Errorf("got %v, want it at debug", lines[0])
		}
	}
}

// TestAccessLogStreams: the sample takes a stream once, and with its first line has its
// last one.
func TestAccessLogStreams(t *testing.T) {
	f, book := withAccess(t, slog.LevelInfo, httpapi.Access{On: true, Sample: .5})
	f.run(t)
	for range 64 {
		resp := openWatch(t, f.addr, "/v1/watch")
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	f.await(t, "muster_httpapi_in_flight_requests", func(n float64) bool { return n == 0 })
	begun, ended := map[any]bool{}, map[any]bool{}
	for _, line := range book.lines(t, "request") {
		begun[line["request_id"]] = true
	}
	for _, line := range book.lines(t, "stream ended") {
		ended[line["request_id"]] = true
	}
	if !maps.Equal(begun, ended) || len(begun) == 0 || len(begun) == 64 {
		t.Errorf("of 64 streams %d have a beginning in the log, %d an end", len(begun), len(ended))
	}
}

// TestAccessLogRefused: who is turned away for want of room is in the log whatever the
// sample is, as every answer of 500 and above; who sent nonsense is not.
func TestAccessLogRefused(t *testing.T) {
	for on, want := range map[bool]int{true: 1, false: 0} {
		book := &logBook{}
		f := newFixture(t, func(cfg *httpapi.Config, deps *httpapi.Deps) {
			cfg.Access, cfg.Connections = httpapi.Access{On: on}, 1
			deps.Logger = slog.New(slog.NewJSONHandler(book, nil))
		})
		f.run(t)
		one := dial(t, f)
		fmt.Fprint(one, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := one.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(dial(t, f)), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 503 {
			t.Fatalf("got %d, want 503", resp.StatusCode)
		}
		fmt.Fprint(one, "nonsense\r\n\r\n")
		if _, err := io.Copy(io.Discard, one); err != nil {
			t.Fatal(err)
		}
		if lines := book.lines(t, "request refused"); len(lines) != want || want == 1 && (lines[0]["status"] != 503.0 || lines[0]["level"] != "INFO") {
			t.Errorf("with the log on %t: got %v, want %d line of the 503", on, lines, want)
		}
	}
}
