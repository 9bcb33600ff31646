package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http/httptest"
	"testing"

	"github.com/muster-registry/muster"
)

// TestCompressedViews: a view is sent as gzip to whoever takes that, and it means
// the same; a small one is not worth it.
func TestCompressedViews(t *testing.T) {
	f := newFixture(t, nil)
	add := func(service string, n int) {
		for i := range n {
			inst := &muster.Instance{Service: service, ID: fmt.Sprintf("i-%d", i), Address: "10.0.0.5", Port: 80, Zone: "eu-1a"}
			if _, err := f.registry.Register(t.Context(), muster.Caller{}, inst, muster.Condition{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("large", 50)
	add("small", 1)
	ask := func(path, encoding, match string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "http://localhost/v1/services/"+path, nil)
		if encoding != "" {
			r.Header.Set("Accept-Encoding", encoding)
		}
		if match != "" {
			r.Header.Set("If-None-Match", match)
		}
		w := httptest.NewRecorder()
		f.server.Handler().ServeHTTP(w, r)
		if w.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: Vary is %q", path, w.Header().Get("Vary"))
		}
		return w
	}
	for _, path := range []string{"large", "large?zone=eu-1a", "small"} {
		plain := ask(path, "", "")
		for encoding, want := range map[string]bool{
			"gzip": true, "gzip, deflate, br": true, "br;q=1.0, GZIP;q=0.5": true, "*": true, "x-gzip": true,
			"gzip;q=0": false, "gzip;q=0, *": false, "identity": false, "br": false, "*;q=0": false,
		} {
			w := ask(path, encoding, "")
			body, etag := w.Body.Bytes(), plain.Header().Get("Etag")
			if got := w.Header().Get("Content-Encoding") == "gzip"; got != (want && path != "small") {
				t.Errorf("%s with %q: gzip %v", path, encoding, got)
			} else if got {
				z, err := gzip.NewReader(w.Body)
				if err != nil {
					t.Fatal(err)
				}
				if body, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
				etag = "W/" + etag
			}
			if w.Code != 200 || !bytes.Equal(body, plain.Body.Bytes()) {
				t.Errorf("%s with %q: %d %s", path, encoding, w.Code, body)
			}
			if got := w.Header().Get("Etag"); got != etag {
				t.Errorf("%s with %q: the entity tag is %s, want %s", path, encoding, got, etag)
			}
			again := ask(path, encoding, w.Header().Get("Etag"))
			if again.Code != 304 || again.Body.Len() != 0 || again.Header().Get("Content-Encoding") != "" {
				t.Errorf("%s with %q: asked again: %d %v", path, encoding, again.Code, again.Header())
			}
		}
	}
}
