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
	"unicode/utf8"

	"github.com/muster-registry/muster"
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

// FuzzFrames: whatever text an instance carries, both formats give back the
// messages one by one and the text as it was.
func FuzzFrames(f *testing.F) {
	f.Add("web", "1.0", "a\nid: 7\n\nevent: goodbye")
	f.Add("a.b-c", "\r\n\r\n", `"}]}`)
	f.Add("x", "\u2028\u2029\x00\x7f", "<script>&amp;")
	f.Fuzz(func(t *testing.T, name, version, tag string) {
		if !utf8.ValidString(version) || !utf8.ValidString(tag) {
			t.Skip("the registry takes no such text")
		}
		if eventsOf(version, tag) == 0 {
			t.Skip("nothing would change")
		}
		r := newReplica()
		hub, err := watch.New(watch.Config{}, watch.Deps{State: r, Cluster: r})
		if err != nil {
			t.Fatal(err)
		}
		r.hub = hub
		s, err := hub.Subscribe(t.Context(), services(name))
		if err != nil {
			wantCode(t, err, muster.CodeInvalidName)
			return
		}
		defer s.Close()
		messages := []watch.Message{next(t, s), next(t, s)}
		name = messages[0].View.Service
		r.apply(logEntry{raft: 1, ops: []op{{service: name, id: "a", version: version}, {service: name, id: "b", version: tag}}})
		messages = append(messages, next(t, s))
		var sse, ndjson []byte
		for _, m := range messages {
			sse, ndjson = m.Append(sse, watch.SSE), m.Append(ndjson, watch.NDJSON)
		}
		fromSSE, err := parseSSE(bytes.NewReader(sse))
		if err != nil {
			t.Fatalf("%v in %q", err, sse)
		}
		fromNDJSON, err := parseNDJSON(bytes.NewReader(ndjson))
		if err != nil {
			t.Fatalf("%v in %q", err, ndjson)
		}
		if len(fromSSE) != 3 || len(fromNDJSON) != 3 {
			t.Fatalf("got %d and %d frames, want 3", len(fromSSE), len(fromNDJSON))
		}
		for n := range fromSSE {
			if fromSSE[n] != fromNDJSON[n] {
				t.Errorf("frame %d: %+v as SSE, %+v as NDJSON", n, fromSSE[n], fromNDJSON[n])
			}
		}
		last := fromSSE[2]
		var change struct {
			Index  uint64
			Events []muster.Event
		}
		unmarshal(t, []byte(last.data), &change)
		if last.kind != "change" || last.id != 1 || change.Index != 1 || len(change.Events) != eventsOf(version, tag) {
			t.Errorf("got %+v", last)
		}
		for _, e := range change.Events {
			if want := map[string]string{"a": version, "b": tag}[e.ID]; e.Instance.Version != want {
				t.Errorf("got %q, want %q", e.Instance.Version, want)
			}
		}
	})
}

// eventsOf counts the versions that are not empty: an empty one takes away what
// is not there.
func eventsOf(versions ...string) (n int) {
	for _, v := range versions {
		if v != "" {
			n++
		}
	}
	return n
}

// FuzzCursor: no cursor, of whatever epoch, makes a stream tell anything but what
// a client with that cursor has to be told.
func FuzzCursor(f *testing.F) {
	for _, epoch := range []uint64{0, 1, 2, 1<<13 - 1} {
		for _, raft := range []uint64{0, 1, 5, 20, 40, 41, 1<<40 - 1} {
			f.Add(muster.MakeIndex(epoch, raft), "s", true)
			f.Add(muster.MakeIndex(epoch, raft), "s3", false)
		}
	}
	f.Add(uint64(1<<64-1), "s", true)
	var log []logEntry
	for n := range 40 {
		e := logEntry{raft: uint64(n + 1), ops: []op{{service: fmt.Sprint("s", n%5), id: fmt.Sprint(n % 3), version: "v"}}}
		if n == 20 {
			e.ops = []op{{restore: true}}
		}
		log = append(log, e)
	}
	h := record(log)
	f.Fuzz(func(t *testing.T, cursor uint64, name string, prefix bool) {
		r := newReplica()
		hub, err := watch.New(watch.Config{MaxEvents: 7}, watch.Deps{State: r, Cluster: r})
		if err != nil {
			t.Fatal(err)
		}
		r.hub = hub
		for _, e := range log {
			r.apply(e)
		}
		spec := services(name)
		if prefix {
			spec = watch.Spec{Prefix: name}
		}
		s, err := hub.Subscribe(t.Context(), from(spec, cursor))
		if cursor > r.Index() && err == nil {
			t.Fatalf("cursor %d was taken at %d", cursor, r.Index())
		}
		if err != nil {
			if code := muster.CodeOf(err); code != muster.CodeInvalidName && (code != muster.CodeCursorGone || cursor <= r.Index()) {
				t.Fatal(err)
			}
			return
		}
		defer s.Close()
		c := newChecker(h, spec)
		if !prefix && name != "" {
			c.services = []string{strings.ToLower(name)}
		}
		c.prefix = strings.ToLower(c.prefix)
		c.known, c.index = true, cursor
		for !c.done() {
			if err := c.take(next(t, s)); err != nil {
				t.Fatal(err)
			}
		}
		if m, ok := s.Ready(); ok {
			t.Fatalf("got %q and nothing was left", text(m))
		}
	})
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
