package httpapi_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the answers of the transcripts instead of comparing them")

// TestTranscripts plays the files of testdata: requests, and the answers they
// got when the file was last written with -update and read by a person.
//
// A request is its request line, its headers and, after a line "body:", its body.
// "----" ends it, and what follows up to a blank line and "====" is the answer.
// The variable parts of an answer are put in angle brackets.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			had, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f := newFixture(t, nil)
			var out strings.Builder
			for part := range strings.SplitSeq(string(had), "\n====\n") {
				request, _, _ := strings.Cut(part, "\n----\n")
				request = strings.Trim(request, "\n")
				if request == "" {
					continue
				}
				fmt.Fprintf(&out, "%s\n----\n%s\n====\n\n", request, play(t, f, request))
			}
			got := strings.TrimSuffix(out.String(), "\n")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(had) {
				t.Errorf("%s\n%s", file, firstDifference(got, string(had)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\ngot  %s\nwant %s\nrun with -update, and read the difference", i+1, a, b)
		}
	}
	return ""
}

var (
	madeID   = regexp.MustCompile(`[a-z2-7]{26}|[A-Z2-7]{26}`)
	madeTags = regexp.MustCompile(`go1\.[0-9a-zA-Z.:-]+`)
)

// play sends one request and renders the answer.
func play(t *testing.T, f *fixture, request string) string {
	t.Helper()
	head, body, _ := strings.Cut(request, "\nbody:\n")
	var kept []string
	for line := range strings.SplitSeq(head, "\n") {
		if !strings.HasPrefix(line, "#") {
			kept = append(kept, line)
		}
	}
	lines := strings.Join(kept, "\n")
	first, rest, _ := strings.Cut(lines, "\n")
	raw := first + " HTTP/1.1\nHost: localhost\nMuster-Request-Id: r1\n" + rest
	raw = strings.TrimSuffix(raw, "\n") + "\n"
	if body != "" {
		raw += fmt.Sprintf("Content-Length: %d\n", len(body))
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(raw, "\n", "\r\n") + "\r\n" + body)))
	if err != nil {
		t.Fatalf("%s: %v", first, err)
	}
	r.RemoteAddr = "192.0.2.7:4711"
	w := httptest.NewRecorder()
	f.server.Handler().ServeHTTP(w, r)
	resp := w.Result()
	var out bytes.Buffer
	fmt.Fprintf(&out, "%d %s\n", resp.StatusCode, http.StatusText(resp.StatusCode))
	for _, k := range slices.Sorted(maps.Keys(resp.Header)) {
		switch k {
		case "Cache-Control", "X-Content-Type-Options", "Muster-Node", "Muster-Leader", "Muster-Cluster", "Muster-Request-Id", "Content-Length":
			continue // on every answer: TestEveryAnswer
		}
		fmt.Fprintf(&out, "%s: %s\n", k, strings.Join(resp.Header[k], ", "))
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "\n%s", b)
	text := madeID.ReplaceAllString(out.String(), "<id>")
	return madeTags.ReplaceAllString(text, "<go>")
}
