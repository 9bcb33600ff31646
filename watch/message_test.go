package watch_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster/watch"
)

// TestFrames shows every message in both formats, as it goes over the wire. There
// is no instance in it: how that looks is not this room's.
func TestFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{MaxEvents: 4})
		b.put("api", "web")
		s := b.open(services("web", "api"))
		frames := map[watch.Format]*strings.Builder{watch.SSE: {}, watch.NDJSON: {}}
		take := func(n int) {
			for range n {
				m := next(t, s)
				for f, to := range frames {
					to.Write(m.Append(nil, f))
				}
			}
		}
		gone := func(service string) op { return op{service: service, id: "i"} }
		for m := next(t, s); m.Kind != watch.KindSynced; m = next(t, s) {
		}
		b.write(gone("web"), op{service: "other", id: "i", version: "1"}, gone("api"))
		take(1)
		b.put("api", "web")
		b.write(gone("web"), gone("api"), gone("other"))
		take(3)
		b.r.age.Store(int64(4 * time.Second))
		time.Sleep(time.Second)
		take(1)
		b.r.age.Store(0)
		take(1)
		s.Close()
		s = b.open(services("ghost"))
		take(3) // the last is a keep-alive
		time.AfterFunc(time.Second, b.stop)
		take(1)
		for f, want := range map[watch.Format]string{watch.SSE: wantSSE, watch.NDJSON: wantNDJSON} {
			if got := frames[f].String(); got != strings.TrimLeft(want, "\n") {
				t.Errorf("format %d: got\n%s\nwant\n%s", f, got, want)
			}
		}
	})
}

const wantSSE = `
id: 2
event: change
data: {"index":2,"events":[{"index":2,"time":"1970-01-01T00:00:00.002Z","type":"deregistered","namespace":"default","service":"web","id":"i","cause":"deregistered","actor":"ip:127.0.0.1","instance":null},{"index":2,"time":"1970-01-01T00:00:00.002Z","type":"deregistered","namespace":"default","service":"api","id":"i","cause":"deregistered","actor":"ip:127.0.0.1","instance":null}]}

event: resync
data: {"namespace":"default","service":"api","index":4,"instances":[],"protected":false,"empty_reason":"deregistered"}

event: resync
data: {"namespace":"default","service":"web","index":4,"instances":[],"protected":false,"empty_reason":"deregistered"}

id: 4
event: synced
data: {"index":4}

event: stale
data: {"stale_ms":4000}

event: stale
data: {"stale_ms":0}

event: snapshot
data: {"namespace":"default","service":"ghost","index":1,"instances":[],"protected":false,"empty_reason":""}

id: 4
event: synced
data: {"index":4}

: keep-alive

event: goodbye
data: {"reason":"shutting_down"}

`

const wantNDJSON = `
{"type":"change","id":2,"data":{"index":2,"events":[{"index":2,"time":"1970-01-01T00:00:00.002Z","type":"deregistered","namespace":"default","service":"web","id":"i","cause":"deregistered","actor":"ip:127.0.0.1","instance":null},{"index":2,"time":"1970-01-01T00:00:00.002Z","type":"deregistered","namespace":"default","service":"api","id":"i","cause":"deregistered","actor":"ip:127.0.0.1","instance":null}]}}
{"type":"resync","data":{"namespace":"default","service":"api","index":4,"instances":[],"protected":false,"empty_reason":"deregistered"}}
{"type":"resync","data":{"namespace":"default","service":"web","index":4,"instances":[],"protected":false,"empty_reason":"deregistered"}}
{"type":"synced","id":4,"data":{"index":4}}
{"type":"stale","data":{"stale_ms":4000}}
{"type":"stale","data":{"stale_ms":0}}
{"type":"snapshot","data":{"namespace":"default","service":"ghost","index":1,"instances":[],"protected":false,"empty_reason":""}}
{"type":"synced","id":4,"data":{"index":4}}
{"type":"keepalive"}
{"type":"goodbye","data":{"reason":"shutting_down"}}
`

// frame is a message as a client reads it.
type frame struct {
	kind string
	id   uint64
	data string
}

// parseSSE reads a text/event-stream as the WHATWG says.
func parseSSE(r io.Reader) (frames []frame, err error) {
	var f frame
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		line := lines.Text()
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if f != (frame{}) {
				frames = append(frames, f)
			}
			f = frame{}
		case name == "":
		case name == "event":
			f.kind = value
		case name == "data":
			f.data += value
		case name == "id":
			if f.id, err = strconv.ParseUint(value, 10, 64); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("unknown field in %q", line)
		}
	}
	return frames, lines.Err()
}

func parseNDJSON(r io.Reader) (frames []frame, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var f struct {
			Type string
			ID   uint64
			Data json.RawMessage
		}
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&f); err != nil {
			return nil, fmt.Errorf("%w in %q", err, lines.Text())
		}
		frames = append(frames, frame{f.Type, f.ID, string(f.Data)})
	}
	return frames, lines.Err()
}

// TestEncodedOnce: a change is encoded once, and all streams hand out the very
// same bytes; so are the views.
func TestEncodedOnce(t *testing.T) {
	b := newBench(t, watch.Config{})
	b.put("web", "api")
	view := b.r.View(key("web")).JSON()
	var streams []*watch.Stream
	for n := range 30 {
		streams = append(streams, b.open([]watch.Spec{services("web"), services("web", "api"), {}}[n%3]))
	}
	holds := func(m watch.Message, shared []byte) bool {
		for f := range 2 {
			found := false
			for piece := range m.Frame(watch.Format(f)) {
				found = found || &piece[0] == &shared[0]
			}
			if !found {
				return false
			}
		}
		return true
	}
	for _, s := range streams {
		for m := next(t, s); m.Kind != watch.KindSynced; m = next(t, s) {
			if m.View.Service == "web" && !holds(m, view) {
				t.Error("a snapshot copies the view")
			}
		}
	}
	b.put("web", "api")
	var change []byte
	for _, s := range streams {
		m := next(t, s)
		for piece := range m.Frame(watch.SSE) {
			if change == nil && bytes.HasPrefix(piece, []byte(`{"index":`)) && bytes.Contains(piece, []byte(`"web"`)) {
				change = piece
			}
		}
		if !holds(m, change) {
			t.Errorf("a change is not shared: %q", m.Append(nil, watch.SSE))
		}
	}
	if n := b.metric("encodings_total"); n != 2 {
		t.Errorf("got %v encodings for two services that changed, want 2", n)
	}
}

// TestWriteTo: what is ready goes out together, in bounded portions.
func TestWriteTo(t *testing.T) {
	b := newBench(t, watch.Config{})
	spec := services("web")
	spec.Format = watch.NDJSON
	s := b.open(spec)
	write := func() (out bytes.Buffer) {
		t.Helper()
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		n, err := s.WriteTo(&out)
		if err != nil || n != int64(out.Len()) {
			t.Fatalf("WriteTo: %d of %d, %v", n, out.Len(), err)
		}
		return out
	}
	kinds := func(out bytes.Buffer) (k []string) {
		t.Helper()
		frames, err := parseNDJSON(&out)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			k = append(k, f.kind)
		}
		return k
	}
	if got := fmt.Sprint(kinds(write())); got != "[snapshot synced]" {
		t.Errorf("got %s", got)
	}
	if n, err := s.WriteTo(io.Discard); n != 0 || err != nil {
		t.Errorf("with nothing to write: %d, %v", n, err)
	}
	for range 100 {
		b.write(op{service: "web", id: "i", version: strings.Repeat("x", 4000)})
	}
	total, calls := 0, 0
	for total < 100 {
		out := write()
		if out.Len() > 80<<10 {
			t.Errorf("%d bytes in one portion", out.Len())
		}
		total += len(kinds(out))
		calls++
	}
	if calls < 6 || calls > 10 {
		t.Errorf("100 changes of about 4.5 kB took %d portions", calls)
	}
	b.put("web")
	b.put("web")
	if err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if _, err := s.WriteTo(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("got %v, want the writer's error", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
