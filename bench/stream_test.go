package bench

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// TestStreams: each stream is told the data of its changes, also of long ones, and of
// nothing else.
func TestStreams(t *testing.T) {
	long := strings.Repeat("x", 5000)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "event: snapshot\ndata: {%s}\n\nevent: synced\nid: 7\ndata: {}\n\n", long)
		fmt.Fprintf(w, ": event: change\n\nevent: change\nid: 8\ndata: {\"a\":1,%s}\n\nevent: change\ndata: {2}\n\n", long)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	var mu sync.Mutex
	got := map[int][]string{}
	var s streams
	defer s.close()
	err := s.open(t.Context(), nil, []string{srv.URL + "/a", srv.URL + "/b", srv.URL + "/c"}, func(n int, data []byte) {
		mu.Lock()
		defer mu.Unlock()
		got[n] = append(got[n], string(data[:7]))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = until(t.Context(), "six changes", func() (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		return len(got[0])+len(got[1])+len(got[2]) == 6, s.failed()
	})
	if err != nil || fmt.Sprint(got) != `map[0:[data: { data: {] 1:[data: { data: {] 2:[data: { data: {]]` {
		t.Errorf("got %v (%v)", got, err)
	}
}

// TestStreamRefused: a stream that is refused, or has missed something, fails the lot.
func TestStreamRefused(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "event: resync\ndata: {}\n\n")
	}))
	defer srv.Close()
	for path, want := range map[string]string{"/refused": "503", "/missed": "missed"} {
		var s streams
		err := s.open(t.Context(), nil, []string{srv.URL + path}, func(int, []byte) {})
		s.close()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
}

// TestStreamTLS: also where the given configuration asks for HTTP/2.
func TestStreamTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "event: synced\ndata: {%q}\n\n", r.Proto)
		w.(http.Flusher).Flush()
		if r.URL.Path == "/stream" {
			<-r.Context().Done()
		}
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	cfg := Config{TLS: &tls.Config{RootCAs: pool, NextProtos: []string{"h2", "http/1.1"}}}.withDefaults()
	var s streams
	defer s.close()
	if err := s.open(t.Context(), cfg.TLS, []string{srv.URL + "/stream"}, func(int, []byte) {}); err != nil {
		t.Error(err)
	}
	transport := newTransport(cfg.TLS)
	defer transport.CloseIdleConnections()
	text, err := send(t.Context(), &http.Client{Transport: transport}, "GET", srv.URL+"/", "", 200)
	if err != nil || !strings.Contains(text, "HTTP/1.1") {
		t.Errorf("got %q, %v", text, err)
	}
}
