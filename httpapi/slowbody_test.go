package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

// dribble sends the head of a write and the first byte of its body.
func dribble(t *testing.T, f *fixture, id string) net.Conn {
	t.Helper()
	conn := dial(t, f)
	if _, err := fmt.Fprintf(conn, "PUT /v1/services/web/instances/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", id, len(okBody), okBody[:1]); err != nil {
		t.Fatal(err)
	}
	return conn
}

// writing is how many writes are in work.
func (f *fixture) writing(t *testing.T) float64 {
	t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "muster_httpapi_in_work_requests" && m.GetLabel()[0].GetValue() == "write" {
				return m.GetGauge().GetValue()
			}
		}
	}
	t.Fatal("nothing says how many writes are in work")
	return 0
}

// want sends a whole request.
func (f *fixture) want(t *testing.T, method, target, body string, status int) {
	t.Helper()
	conn := dial(t, f)
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body); err != nil {
		t.Fatal(err)
	}
	if got, code, _ := answerOn(t, conn); got != status {
		t.Errorf("%s %s: got %d %s, want %d", method, target, got, code, status)
	}
}

func answerOn(t *testing.T, conn net.Conn) (status int, code string, closes bool) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ = strings.Cut(string(body), `"code":"`)
	code, _, _ = strings.Cut(code, `"`)
	return resp.StatusCode, code, resp.Close
}

// TestSlowBodiesHoldNoPlace: who sends a body drop by drop has no place among the
// writes meanwhile; so many are waited for, the others are sent away, and those that
// come to an end are done.
func TestSlowBodiesHoldNoPlace(t *testing.T) {
	f := newFixture(t, nil)
	f.run(t)
	var slow []net.Conn
	for n := range muster.MaxSlowBodies {
		slow = append(slow, dribble(t, f, fmt.Sprint("slow-", n)))
	}
	waited := func(want float64) {
		t.Helper()
		f.await(t, "muster_httpapi_slow_bodies", func(n float64) bool { return n == want })
	}
	waited(muster.MaxSlowBodies)
	if n := f.writing(t); n != 0 {
		t.Errorf("%v places are held", n)
	}
	if status, code, closes := answerOn(t, dribble(t, f, "one-too-many")); status != 503 || code != "overloaded" || !closes {
		t.Errorf("one too many: got %d %q, closes %v", status, code, closes)
	}
	f.want(t, "PUT", inst, okBody, 201)
	f.want(t, "PUT", inst+"/heartbeat", "", 200)
	for n, conn := range slow[:10] {
		if _, err := io.WriteString(conn, okBody[1:]); err != nil {
			t.Fatal(err)
		}
		if status, _, closes := answerOn(t, conn); status != 201 || closes {
			t.Errorf("slow body %d: got %d, closes %v", n, status, closes)
		}
	}
	waited(muster.MaxSlowBodies - 10)
}

// TestBodiesThatAreNotWaitedFor: a body that nobody reads, or that never ends, keeps
// neither the answer nor the connection for longer than it is given.
func TestBodiesThatAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.run(t)
	f.want(t, "PUT", inst, okBody, 201)
	var all sync.WaitGroup
	defer all.Wait()
	for name, tc := range map[string]struct {
		head string
		want int
		now  bool // nothing of the body is waited for
	}{
		"not read":     {"PUT " + inst + "/heartbeat", 200, false},
		"not found":    {"PUT /v1/nothing", 404, false},
		"never ending": {"PUT " + inst, 400, false},
		"view":         {"GET /v1/services/web", 200, false},
		"long poll":    {"GET /v1/services/web?index=1&wait=10ms", 200, false},
		"list":         {"GET /v1/services", 200, false},
		"stream":       {"GET /v1/watch", 200, true},
		"metrics":      {"GET /metrics", 200, true},
		"no metrics":   {"HEAD /metrics", 200, true},
		"backup":       {"GET /v1/cluster/snapshot", 200, true},
	} {
		conn := dial(t, f)
		all.Go(func() { // all at once, which t.Parallel does not promise
			if err := unreadBody(conn, tc.head, tc.want, tc.now); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// unreadBody sends the beginning of a body, and looks for the answer and for the end of
// the connection.
func unreadBody(conn net.Conn, head string, want int, now bool) error {
	patience := 60 * time.Second
	if now {
		patience = muster.BodyTimeout - time.Second
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, head+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	method, _, _ := strings.Cut(head, " ")
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
		return fmt.Errorf("got %d %v, want %d", resp.StatusCode, err, want)
	}
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("the connection stays open: %w", err)
	}
	return nil
}
