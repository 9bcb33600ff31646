package watch_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/watch"
)

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
