package httpapi_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster/httpapi"
)

// TestWatchForm: NDJSON is for those who name it and do not want events as much.
func TestWatchForm(t *testing.T) {
	f := newFixture(t, nil)
	for accept, lines := range map[string]bool{
		"":                            false,
		"*/*":                         false,
		"application/json":            false,
		"text/event-stream":           false,
		"application/x-ndjson":        true,
		"Application/X-NDJSON; q=0.5": true,
		"application/x-ndjson, */*":   true,
		"application/x-ndjson;q=0":    false,
		"application/x-ndjson;q=much": false,
		"text/event-stream, application/x-ndjson":       false,
		"text/event-stream;q=0.9, application/x-ndjson": true,
	} {
		r := httptest.NewRequest("GET", "http://localhost/v1/watch", nil)
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		w := httptest.NewRecorder()
		f.server.Handler().ServeHTTP(w, r)
		want := "text/event-stream"
		if lines {
			want = "application/x-ndjson"
		}
		if got := w.Header().Get("Content-Type"); got != want || strings.HasPrefix(w.Body.String(), "{") != lines {
			t.Errorf("Accept %q: got %s, want %s:\n%s", accept, got, want, w.Body)
		}
	}
}

// TestWatchFlows: what is told arrives at once, and a caller who goes is let go.
func TestWatchFlows(t *testing.T) {
	f := newFixture(t, nil)
	f.registry.streams = make(chan string)
	f.run(t)
	resp := openWatch(t, f.addr, "/v1/watch?service=web")
	read := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("got %q %v, want %q", got, err, want)
		}
	}
	read("event: synced\ndata: {\"index\":0}\n\n")
	for _, text := range []string{"one\n", "another\n"} {
		f.registry.streams <- text
		read(text)
	}
	resp.Body.Close()
	f.await(t, "muster_httpapi_in_flight_requests", func(n float64) bool { return n == 0 })
	if f.registry.closedStreams() != 1 {
		t.Error("the stream of a caller who went was not closed")
	}
}

// TestWatchPanics: a defect of one stream is the end of that stream, and of nothing
// else.
func TestWatchPanics(t *testing.T) {
	f := newFixture(t, nil)
	f.registry.streams = make(chan string)
	f.run(t)
	resp := openWatch(t, f.addr, "/v1/watch")
	f.registry.streams <- "panic"
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the end of the stream: %v", err)
	}
	f.await(t, "muster_httpapi_in_flight_requests", func(n float64) bool { return n == 0 })
	if _, page := do(t, f, "GET", "/metrics", ""); !strings.Contains(page, "muster_httpapi_panics_total 1\n") {
		t.Error("the panic was not counted")
	}
	if f.registry.closedStreams() != 1 {
		t.Error("the stream was not closed")
	}
}

// openWatch opens a stream, for at most 30 s.
func openWatch(t *testing.T, addr, path string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %d %s", path, resp.StatusCode, b)
	}
	return resp
}

// TestStreamsPerAddress: an address has as many streams as it may, loopback any
// number, and one that ends makes room.
func TestStreamsPerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.streams = make(chan string)
		s, err := httpapi.New(httpapi.Config{StreamsPerAddress: 2}, depsOf(nowhere{}, m))
		if err != nil {
			t.Fatal(err)
		}
		open := func(from string) (w *httptest.ResponseRecorder, end context.CancelFunc) {
			ctx, end := context.WithCancel(t.Context())
			r := httptest.NewRequestWithContext(ctx, "GET", "http://localhost/v1/watch", nil)
			r.RemoteAddr = from
			w = httptest.NewRecorder()
			go s.Handler().ServeHTTP(w, r)
			synctest.Wait()
			return w, end
		}
		var ends []context.CancelFunc
		want := func(from string, status int) {
			t.Helper()
			w, end := open(from)
			ends = append(ends, end)
			if w.Code != status {
				t.Errorf("a stream from %s: got %d %s, want %d", from, w.Code, w.Body, status)
			}
			if status == http.StatusTooManyRequests && (w.Header().Get("Retry-After") != "5" || !strings.Contains(w.Body.String(), `"rate_limited"`)) {
				t.Errorf("refused with %v %s", w.Header(), w.Body)
			}
		}
		want("192.0.2.1:1", 200)
		want("[::ffff:192.0.2.1]:2", 200)
		want("192.0.2.1:3", 429)
		want("192.0.2.2:1", 200)
		for range 5 {
			want("127.0.0.1:1", 200)
			want("[::1]:1", 200)
		}
		ends[0]()
		synctest.Wait()
		want("192.0.2.1:4", 200)
		want("192.0.2.1:5", 429)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/v1/limits", nil))
		if !strings.Contains(w.Body.String(), `"streams_per_address":2`) {
			t.Errorf("the limits are %s", w.Body)
		}
		for _, end := range ends {
			end()
		}
		synctest.Wait()
	})
}
