package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
	"github.com/muster-registry/muster/problem"
)

// do sends one request to a running server.
func do(t *testing.T, f *fixture, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+f.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Add(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

const plain = `{"address":"10.0.0.5","port":80}`

func TestEveryAnswer(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	for _, path := range []string{"/livez", "/v1/services", "/nothing", "/v1/services/web", "/metrics", "/v1//x", "/v1/openapi.yaml"} {
		resp, _ := do(t, f, "GET", path, "")
		for name, want := range map[string]string{
			"Muster-Node": "node-1", "Muster-Leader": "node-1", "Muster-Cluster": "cluster-1", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if id := resp.Header.Get("Muster-Request-Id"); id == "" || len(id) > muster.MaxRequestIDLen {
			t.Errorf("%s: request id %q", path, id)
		}
	}
	for sent, kept := range map[string]bool{
		"abc": true, "with space": true, strings.Repeat("x", 64): true, strings.Repeat("x", 65): false, "\x80": false, "tab\there": false,
	} {
		resp, _ := do(t, f, "GET", "/livez", "", "Muster-Request-Id", sent)
		if got := resp.Header.Get("Muster-Request-Id"); (got == sent) != kept {
			t.Errorf("request id %q became %q", sent, got)
		}
	}
	f.cluster.set("", true)
	resp, _ := do(t, f, "PUT", "/v1/services/web/instances/a", plain)
	if got, there := resp.Header["Muster-Leader"]; !there || got[0] != "" {
		t.Errorf("without a leader Muster-Leader is %q", got)
	}
}

func TestHeadHasNoBody(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	do(t, f, "PUT", "/v1/services/web/instances/a", plain)
	_, body := do(t, f, "GET", "/v1/services/web", "")
	resp, none := do(t, f, "HEAD", "/v1/services/web", "")
	if resp.StatusCode != 200 || none != "" || resp.ContentLength != int64(len(body)) {
		t.Errorf("HEAD: %d with %q, length %d, want %d", resp.StatusCode, none, resp.ContentLength, len(body))
	}
}

func TestHosts(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config, _ *httpapi.Deps) { c.Hosts = []string{"Registry.Example."} })
	f.run(t)
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:7400": 200, "127.0.0.1": 200, "127.1.2.3:99": 200, "[::1]:7400": 200, "[::1]": 200, "node.localhost": 200,
		"registry.example:80": 200, "registry.example": 200, "evil.example": 421, "10.0.0.1": 421, "0.0.0.0": 421, "127.0.0.1.evil.example": 421,
		"xregistry.example": 421, "[::2]": 421, "localhost.": 200, "2130706433": 421,
	} {
		if resp, body := do(t, f, "GET", "/livez", "", "Host", host); resp.StatusCode != want {
			t.Errorf("Host %s: %d, want %d: %s", host, resp.StatusCode, want, body)
		}
	}
}

// wide is a listener that says it is not bound to loopback.
type wide struct{ net.Listener }

func (wide) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 7400} }

func TestAnyHostOffLoopback(t *testing.T) {
	f := newFixture(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.Listener = wide{d.Listener} })
	f.run(t)
	if resp, body := do(t, f, "GET", "/livez", "", "Host", "registry.example"); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestReadiness(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	for _, c := range []struct {
		leader string
		ready  bool
		query  string
		status int
		code   muster.Code
	}{
		{"node-2", true, "", 200, ""}, {"node-2", true, "?require=leader", 200, ""}, {"", true, "", 200, ""},
		{"", true, "?require=leader", 503, muster.CodeNoLeader}, {"node-2", false, "", 503, muster.CodeCatchingUp}, {"", false, "?verbose", 503, muster.CodeCatchingUp},
	} {
		f.cluster.set(c.leader, c.ready)
		for _, path := range []string{"/readyz", "/healthz"} {
			resp, body := do(t, f, "GET", path+c.query, "")
			if resp.StatusCode != c.status || c.status != 200 && (problem.Decode(c.status, []byte(body)).Code != c.code || resp.Header.Get("Retry-After") == "") {
				t.Errorf("%s%s with leader %q, ready %v: %d %s, want %d %s", path, c.query, c.leader, c.ready, resp.StatusCode, body, c.status, c.code)
			}
		}
		if resp, _ := do(t, f, "GET", "/livez", ""); resp.StatusCode != 200 {
			t.Errorf("/livez: %d", resp.StatusCode)
		}
	}
}

// TestErrorsOfTheRegistry: every kind of failure has its answer, and none shows
// an internal cause.
func TestErrorsOfTheRegistry(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	for _, c := range []struct {
		method string
		err    error
		status int
		code   muster.Code
		retry  string
	}{
		{"PUT", muster.Errorf(muster.CodeNoLeader, "none"), 503, muster.CodeNoLeader, "1"},
		{"PUT", fmt.Errorf("proposing: %w", muster.Errorf(muster.CodeOverloaded, "full").WithRetryAfter(2500*time.Millisecond)), 503, muster.CodeOverloaded, "3"},
		{"PUT", muster.Errorf(muster.CodeRateLimited, "slow down"), 429, muster.CodeRateLimited, "1"},
		{"PUT", muster.Errorf(muster.CodeQuotaExceeded, "full"), 403, muster.CodeQuotaExceeded, ""},
		{"PUT", context.DeadlineExceeded, 504, muster.CodeOutcomeUnknown, ""}, {"PUT", context.Canceled, 504, muster.CodeOutcomeUnknown, ""},
		{"GET", context.DeadlineExceeded, 503, muster.CodeOverloaded, "1"}, {"GET", context.Canceled, 503, muster.CodeShuttingDown, "1"},
		{"GET", muster.Errorf(muster.CodeCatchingUp, "not yet"), 503, muster.CodeCatchingUp, "1"},
		{"GET", errors.New("disk on fire at /secret"), 500, muster.CodeInternal, ""}, {"DELETE", errors.New("disk on fire at /secret"), 500, muster.CodeInternal, ""},
	} {
		f.registry.failure = c.err
		r := httptest.NewRequest(c.method, "http://localhost/v1/services/web/instances/a", strings.NewReader(plain))
		r.Header.Set("Muster-Request-Id", "find-me")
		w := httptest.NewRecorder()
		log.Reset()
		f.server.Handler().ServeHTTP(w, r)
		got := problem.Decode(w.Code, w.Body.Bytes())
		if w.Code != c.status || got.Code != c.code || w.Header().Get("Retry-After") != c.retry || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s with %v: %d %s, Retry-After %q, want %d %s %q", c.method, c.err, w.Code, w.Body, w.Header().Get("Retry-After"), c.status, c.code, c.retry)
		}
		if internal := c.code == muster.CodeInternal; internal != strings.Contains(log.String(), "secret") || internal != strings.Contains(log.String(), "find-me") {
			t.Errorf("%s with %v: logged %q", c.method, c.err, log.String())
		}
	}
}

func TestPanicsAreAnswered(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	f.registry.panics = true
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://localhost/v1/services/web", nil)
	r.Header.Set("Muster-Request-Id", "find-me")
	f.server.Handler().ServeHTTP(w, r)
	if w.Code != 500 || problem.Decode(500, w.Body.Bytes()).Code != muster.CodeInternal || strings.Contains(w.Body.String(), "broke") {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	for _, want := range []string{"find-me", "the registry broke", "memory_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, &log)
		}
	}
}

func TestTimeoutOfAWrite(t *testing.T) {
	f := newFixture(t, nil)
	f.registry.blocks = true
	f.run(t)
	start := time.Now()
	resp, body := do(t, f, "PUT", "/v1/services/web/instances/a?timeout=50ms", plain)
	if took := time.Since(start); resp.StatusCode != 504 || took < 50*time.Millisecond || took > 3*time.Second {
		t.Errorf("answered %d after %s: %s", resp.StatusCode, took, body)
	}
}

func TestMetrics(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	do(t, f, "PUT", "/v1/services/web/instances/a", plain)
	do(t, f, "GET", "/v1/services/web?zone=a", "")
	do(t, f, "GET", "/v1/services/secret-name", "")
	do(t, f, "BREW", "/v1/services/web", "")
	do(t, f, "GET", "/no/such/path", "")
	_, page := do(t, f, "GET", "/metrics", "")
	if got, want := strings.Count(page, "\nmuster_httpapi_requests_total{"), 4*(len(httpapi.Routes())+1); got != want {
		t.Errorf("%d series, want %d: the labels are those of the table", got, want)
	}
	for _, line := range []string{
		`muster_httpapi_requests_total{method="PUT",route="/v1/services/{service}/instances/{id}",status="2xx"} 1`,
		`muster_httpapi_requests_total{method="GET",route="/v1/services/{service}",status="2xx"} 1`,
		`muster_httpapi_requests_total{method="GET",route="/v1/services/{service}",status="4xx"} 1`,
		`muster_httpapi_requests_total{method="none",route="none",status="4xx"} 2`,
		`muster_httpapi_in_flight_requests 1`,
		`muster_httpapi_request_seconds_count{method="PUT",route="/v1/services/{service}/instances/{id}"} 1`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("the page lacks %s", line)
		}
	}
	for _, never := range []string{"secret-name", "BREW", "/no/such"} {
		if strings.Contains(page, never) {
			t.Errorf("the page holds %s", never)
		}
	}
}

// TestActor: who writes is the address of the connection, whatever headers say.
func TestActor(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	do(t, f, "PUT", "/v1/services/web/instances/a?reason=why%20not", plain, "X-Forwarded-For", "6.6.6.6", "Forwarded", "for=6.6.6.6", "X-Real-Ip", "6.6.6.6")
	_, body := do(t, f, "GET", "/v1/events", "")
	if !strings.Contains(body, `"actor":"ip:127.0.0.1"`) || !strings.Contains(body, `"reason":"why not"`) {
		t.Errorf("the journal says %s", body)
	}
}
