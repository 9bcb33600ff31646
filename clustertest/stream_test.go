package clustertest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
	"github.com/muster-registry/muster/problem"
)

// message is one message of a stream, as NDJSON has it.
type message struct {
	Type string          `json:"type"`
	ID   uint64          `json:"id"`
	Data json.RawMessage `json:"data"`
}

// change is the data of a message of type change.
type change struct {
	Index  uint64          `json:"index"`
	Events []*muster.Event `json:"events"`
}

// stream is an open GET /v1/watch.
type stream struct {
	body  io.ReadCloser
	lines *bufio.Reader
}

// streams is the client of all streams: it keeps no connection for another use.
var streams = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}

// openStream opens a stream of NDJSON; an answer that is none is an error.
func openStream(ctx context.Context, base, query string) (*stream, error) {
	r, err := http.NewRequestWithContext(ctx, "GET", base+"/v1/watch?"+query, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/x-ndjson")
	resp, err := streams.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, err := io.ReadAll(resp.Body)
		return nil, errors.Join(problem.Decode(resp.StatusCode, b), err, resp.Body.Close())
	}
	return &stream{body: resp.Body, lines: bufio.NewReader(resp.Body)}, nil
}

// next reads the next message that is not a keep-alive. The end of the stream is
// io.EOF or any other error of the connection.
func (s *stream) next() (m message, err error) {
	for {
		line, err := s.lines.ReadBytes('\n')
		if err != nil {
			return m, err // a line that was cut off is none
		}
		if m = (message{}); json.Unmarshal(line, &m) != nil {
			return m, fmt.Errorf("not a message: %s", line)
		}
		if m.Type != "keepalive" {
			return m, nil
		}
	}
}

func (s *stream) close() { s.body.Close() }

// mustWatch opens a stream on m that lasts no longer than the test's patience.
func mustWatch(t testing.TB, m *clustertest.Member, query string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*clustertest.Patience)
	t.Cleanup(cancel)
	s, err := openStream(ctx, m.URL(), query)
	if err != nil {
		t.Fatalf("watching %q on %s: %v", query, m.Name, err)
	}
	t.Cleanup(s.close)
	return s
}

// expect reads the next message, which has to be of that type.
func (s *stream) expect(t testing.TB, kind string) message {
	t.Helper()
	m, err := s.next()
	if err != nil || m.Type != kind {
		t.Fatalf("got %s %d %s %v, want %s", m.Type, m.ID, m.Data, err, kind)
	}
	return m
}

func (m message) decode(t testing.TB, v any) {
	t.Helper()
	clustertest.MustDecode(t, string(m.Data), v)
}

// text is the events of a change in short.
func (c change) text() string {
	var parts []string
	for _, e := range c.Events {
		parts = append(parts, fmt.Sprintf("%s/%s %s", e.Service, e.ID, e.Cause))
	}
	return strings.Join(parts, ", ")
}

// TestWatch follows a service from one node to the next, as curl and a browser do.
func TestWatch(t *testing.T) {
	c := clustertest.Start(t, 3)
	c.Members[0].MustDo("PUT", "/v1/services/web/instances/web-1", body, 201)
	c.CheckEqualStates()

	s := mustWatch(t, c.Members[0], "service=web&service=api")
	for n, want := range []struct {
		service   string
		instances int
	}{{"api", 0}, {"web", 1}} {
		var v muster.View
		s.expect(t, "snapshot").decode(t, &v)
		if v.Service != want.service || len(v.Instances) != want.instances {
			t.Errorf("snapshot %d: got %s with %d, want %v", n, v.Service, len(v.Instances), want)
		}
	}
	synced := s.expect(t, "synced")
	c.Members[1].MustDo("PUT", "/v1/services/other/instances/o", body, 201)
	c.Members[1].MustDo("POST", "/v1/batch/register", `{"instances":[
		{"service":"api","id":"a","address":"10.0.0.5","port":80,"ttl":"none"},
		{"service":"other","id":"p","address":"10.0.0.5","port":80,"ttl":"none"},
		{"service":"web","id":"web-2","address":"10.0.0.6","port":80,"ttl":"none"}]}`, 200)
	var ch change
	first := s.expect(t, "change")
	first.decode(t, &ch)
	if got, want := ch.text(), "api/a registered, web/web-2 registered"; got != want || first.ID != ch.Index || first.ID <= synced.ID {
		t.Errorf("change %d (after %d): got %s, want %s: one entry is one message", first.ID, synced.ID, got, want)
	}
	c.Members[2].MustDo("DELETE", "/v1/services/web/instances/web-1?reason=retired", "", 204)
	second := s.expect(t, "change")
	second.decode(t, &ch)
	if got := ch.text(); got != "web/web-1 deregistered" || ch.Events[0].Reason != "retired" || ch.Events[0].Instance != nil {
		t.Errorf("got %s %s", got, second.Data)
	}
	s.close()

	// On to another node, from between the two.
	s = mustWatch(t, c.Members[2], fmt.Sprintf("service=web&service=api&from=%d", first.ID))
	if m := s.expect(t, "change"); m.ID != second.ID || string(m.Data) != string(second.Data) {
		t.Errorf("resumed with %d %s, want %d %s", m.ID, m.Data, second.ID, second.Data)
	}

	_, err := openStream(t.Context(), c.Members[1].URL(), fmt.Sprintf("from=%d", second.ID+1000))
	if muster.CodeOf(err) != muster.CodeCursorGone {
		t.Errorf("from an index that is ahead of everything: %v, want cursor_gone", err)
	}
}

// TestWatchSaysStale: a stream on a node that is cut off says so, and says when
// that is over; a node that has just started and knows nothing opens none.
func TestWatchSaysStale(t *testing.T) {
	c := clustertest.Start(t, 3)
	cut := c.Followers(c.Leader())[0]
	cut.MustDo("PUT", "/v1/services/web/instances/web-1", body, 201)
	s := mustWatch(t, cut, "service=web")
	s.expect(t, "snapshot")
	s.expect(t, "synced")
	c.Isolate(cut)
	var told struct {
		StaleMS *int64 `json:"stale_ms"`
	}
	s.expect(t, "stale").decode(t, &told)
	if told.StaleMS == nil || *told.StaleMS < 3000 {
		t.Errorf("told an age of %v", told.StaleMS)
	}
	c.Heal()
	for *told.StaleMS != 0 {
		s.expect(t, "stale").decode(t, &told)
	}

	for _, m := range c.Members {
		if err := m.Stop(); err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
	}
	if m, err := s.next(); err != nil || m.Type != "goodbye" {
		t.Errorf("at the end: %v %v, want goodbye", m, err)
	}
	if m, err := s.next(); err != io.EOF {
		t.Errorf("after goodbye: %v %v", m, err)
	}
	cut.Start()
	c.Wait("the lone node to listen", func() bool { s, _, err := cut.Do("GET", "/livez", ""); return err == nil && s == 200 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := openStream(ctx, cut.URL(), "service=web"); muster.CodeOf(err) != muster.CodeCatchingUp {
		t.Errorf("on a node that knows nothing yet: %v, want catching_up", err)
	}
}
