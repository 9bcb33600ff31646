package bench

import (
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
