package httpapi_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

// rawCase is bytes on a socket. Every one of them is answered with a problem and
// the connection is closed.
type rawCase struct {
	name   string
	pieces []string
	code   muster.Code
}

func rawCases() []rawCase {
	const (
		ok   = `{"address":"10.0.0.5","port":80}`
		line = "PUT /v1/services/web/instances/web-1 HTTP/1.1\r\nHost: localhost\r\n"
	)
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(ok), ok)
	return []rawCase{
		{"TE and CL", []string{line + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked}, muster.CodeMalformedRequest},
		{"CL and TE", []string{line + "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n" + chunked}, muster.CodeMalformedRequest},
		{"TE and CL in pieces", []string{line + "Content-Len", "gth: 5\r", "\nTransf", "er-Encoding: chunked\r\n\r", "\n" + chunked}, muster.CodeMalformedRequest},
		{"two CL", []string{line + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + ok}, muster.CodeMalformedRequest},
		{"CL not a number", []string{line + "Content-Length: 0x20\r\n\r\n" + ok}, muster.CodeMalformedRequest},
		{"CL negative", []string{line + "Content-Length: -1\r\n\r\n" + ok}, muster.CodeMalformedRequest},
		{"TE gzip", []string{line + "Transfer-Encoding: gzip\r\n\r\n" + ok}, muster.CodeMalformedRequest},
		{"TE gzip, chunked", []string{line + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked}, muster.CodeMalformedRequest},
		{"two TE", []string{line + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked}, muster.CodeMalformedRequest},
		{"bare LF in a chunk's length", []string{line + "Transfer-Encoding: chunked\r\n\r\n" + strings.Replace(chunked, "\r\n", "\n", 1)}, muster.CodeMalformedRequest},
		{"chunk length not a number", []string{line + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + ok}, muster.CodeMalformedRequest},
		{"chunk without its end", []string{line + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%sXX", len(ok), ok)}, muster.CodeMalformedRequest},
		{"two Hosts", []string{line + "Host: localhost\r\n\r\n"}, muster.CodeMalformedRequest},
		{"no Host", []string{"GET /livez HTTP/1.1\r\n\r\n"}, muster.CodeMalformedRequest},
		{"Host with a space", []string{"GET /livez HTTP/1.1\r\nHost: local host\r\n\r\n"}, muster.CodeMalformedRequest},
		{"header without a colon", []string{line + "Nonsense\r\n\r\n"}, muster.CodeMalformedRequest},
		{"header name with a space", []string{line + "Content-Length : 5\r\n\r\n"}, muster.CodeMalformedRequest},
		{"folded header", []string{line + "X-A: b\r\n c\r\nX-\x00: d\r\n\r\n"}, muster.CodeMalformedRequest},
		{"NUL in a header", []string{line + "Muster-Request-Id: a\x00b\r\n\r\n"}, muster.CodeMalformedRequest},
		{"CR in a header", []string{line + "Muster-Request-Id: a\rb\r\n\r\n"}, muster.CodeMalformedRequest},
		{"space in the target", []string{"GET /v1/services/we b HTTP/1.1\r\nHost: localhost\r\n\r\n"}, muster.CodeMalformedRequest},
		{"NUL in the target", []string{"GET /v1/services/we\x00b HTTP/1.1\r\nHost: localhost\r\n\r\n"}, muster.CodeMalformedRequest},
		{"percent sign alone", []string{"GET /v1/services/we%zz HTTP/1.1\r\nHost: localhost\r\n\r\n"}, muster.CodeMalformedRequest},
		{"no version", []string{"GET /livez\r\n\r\n"}, muster.CodeMalformedRequest},
		{"version 3", []string{"GET /livez HTTP/3.0\r\nHost: localhost\r\n\r\n"}, muster.CodeMalformedRequest},
		{"preface of HTTP/2", []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, muster.CodeInvalidPath},
		{"TLS hello", []string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"}, muster.CodeMalformedRequest},
		{"not HTTP", []string{"hello\r\n\r\n"}, muster.CodeMalformedRequest},
		{"unknown expectation", []string{line + "Expect: the-spanish-inquisition\r\nContent-Length: 0\r\n\r\n"}, muster.CodeMalformedRequest},
		{"200 KB URI", []string{"GET /v1/services/" + strings.Repeat("a", 200<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n"}, muster.CodeURITooLong},
		{"200 KB header", []string{line + "X-A: " + strings.Repeat("a", 200<<10) + "\r\n\r\n"}, muster.CodeHeadersTooLarge},
		{"33 KB of headers", []string{line + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 33) + "\r\n"}, muster.CodeHeadersTooLarge},
		{"10,000 headers", []string{line + strings.Repeat("X-A: a\r\n", 10_000) + "\r\n"}, muster.CodeHeadersTooLarge},
		{"CONNECT", []string{"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"}, muster.CodeInvalidPath},
	}
}

// TestRawSockets sends what no client library would.
func TestRawSockets(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	for _, c := range rawCases() {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, f)
			for _, p := range c.pieces {
				// The server may hang up before it has read all of it.
				if _, err := io.WriteString(conn, p); err != nil {
					break
				}
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			got := problem.Decode(resp.StatusCode, body)
			var p problem.Problem
			if err := json.Unmarshal(body, &p); err != nil || p.Code != c.code || resp.StatusCode != problem.Status(c.code) {
				t.Errorf("answered %d %v, want %s: %s", resp.StatusCode, got, c.code, body)
			}
			for _, h := range []string{"Muster-Node", "Muster-Cluster", "Muster-Request-Id", "Cache-Control"} {
				if resp.Header.Get(h) == "" {
					t.Errorf("no %s", h)
				}
			}
			if c.code == muster.CodeInvalidPath {
				return // well-formed: the connection may stay
			}
			if !resp.Close {
				t.Error("the connection is not announced to close")
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("the connection stays open")
			}
		})
	}
	if v, _, err := f.registry.Service(t.Context(), muster.ServiceKey{Service: "web"}, nil, muster.ReadOptions{}); err == nil {
		t.Errorf("something was registered: %s", v.JSON())
	}
}

func dial(t *testing.T, f *fixture) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestChunkedIsTaken: a body of unknown length is fine, over a connection that
// stays open, and also where requests come packed together.
func TestChunkedIsTaken(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	body := `{"address":"10.0.0.5","port":80}`
	put := func(id string) string {
		return fmt.Sprintf("PUT /v1/services/web/instances/%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", id, len(body), body)
	}
	conn := dial(t, f)
	r := bufio.NewReader(conn)
	answered := func(want int) *http.Response {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != want {
			t.Fatalf("answered %d %s, %v", resp.StatusCode, b, err)
		}
		return resp
	}
	for range 2 {
		fmt.Fprint(conn, put("one"))
	}
	answered(201)
	resp := answered(200)
	if resp.Close {
		// The second came in its own segment or with the first; only the latter
		// closes the connection.
		conn = dial(t, f)
		r = bufio.NewReader(conn)
	}
	fmt.Fprint(conn, put("two"))
	if answered(201).Close {
		t.Error("a chunked request that came alone closed the connection")
	}
	fmt.Fprint(conn, put("three"))
	answered(201)
}

// TestSlowHeaders: who does not finish a head is dropped after 5 s, while others
// are answered.
func TestSlowHeaders(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	slow := dial(t, f)
	start := time.Now()
	fmt.Fprint(slow, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	resp, err := http.Get("http://" + f.addr + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("another request took %s", took)
	}
	if n, err := io.ReadAll(slow); len(n) != 0 {
		t.Errorf("the slow one got %q, %v", n, err)
	}
	if took := time.Since(start); took < 4*time.Second || took > 10*time.Second {
		t.Errorf("dropped after %s, want about 5s", took)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestEndlessBodies: bodies without a length are cut off at the limit, at little
// memory each.
func TestEndlessBodies(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	const many = 50
	// One piece for all clients, so that what grows is the server.
	piece := fmt.Appendf(nil, "%x\r\n%s\r\n", 1<<20, strings.Repeat(" ", 1<<20))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	done := make(chan error, many)
	for range many {
		conn := dial(t, f)
		go func() {
			fmt.Fprint(conn, "PUT /v1/services/web/instances/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
			for range 64 {
				if _, err := conn.Write(piece); err != nil {
					break
				}
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err == nil && resp.StatusCode != http.StatusRequestEntityTooLarge {
				err = fmt.Errorf("answered %d", resp.StatusCode)
			}
			done <- err
		}()
	}
	reset := 0
	for range many {
		// A client that goes on sending may find the connection reset before it
		// reads the answer.
		if err := <-done; err != nil && strings.Contains(err.Error(), "reset") {
			reset++
		} else if err != nil {
			t.Error(err)
		}
	}
	if reset == many {
		t.Error("nobody saw the answer 413")
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 100<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// TestAnswersLikeRefusals: a body that happens to be written in pieces of which
// one begins as an answer of net/http's own would is sent as it is.
func TestAnswersLikeRefusals(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	const pattern = "HTTP/1.1 417 no "
	for shift := range len(pattern) {
		i := &muster.Instance{Service: "web", ID: fmt.Sprintf("i%d", shift), Address: "10.0.0.5", Port: 80, Meta: map[string]string{}}
		for n := range 15 {
			i.Meta[fmt.Sprintf("m%02d", n)] = strings.Repeat("x", shift) + strings.Repeat(pattern, 60)
		}
		if _, err := f.registry.Register(t.Context(), muster.Caller{}, i, muster.Condition{}); err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		if resp, body := do(t, f, "GET", "/v1/services/web/instances/"+i.ID, ""); resp.StatusCode != 200 || body != string(want) {
			t.Errorf("shifted by %d: got %d %.200s", shift, resp.StatusCode, body)
		}
	}
}
