package watch

import (
	"io"
	"iter"
	"strconv"
	"time"

	"github.com/muster-registry/muster"
)

// Kind says what a message tells.
type Kind string

// The kinds of message.
const (
	// KindSnapshot is the full view of a service, at the start of a stream.
	KindSnapshot Kind = "snapshot"
	// KindResync is the same later on: it replaces what was known of the service,
	// because changes can no longer be told one by one. A service that is in none of
	// the resyncs before a synced has no instance.
	KindResync Kind = "resync"
	// KindSynced ends snapshots and resyncs: they all show its index.
	KindSynced Kind = "synced"
	// KindChange holds all events of one log entry, its index.
	KindChange Kind = "change"
	// KindStale says how old this node's state is; 0: it is current again.
	KindStale Kind = "stale"
	// KindKeepAlive says nothing.
	KindKeepAlive Kind = "keepalive"
	// KindGoodbye is the last message: the node stops.
	KindGoodbye Kind = "goodbye"
)

// Message is one thing that a stream tells.
type Message struct {
	Kind Kind
	// Index is that of synced and change, from which another stream resumes; else 0.
	Index uint64
	// View is that of snapshot and resync.
	View *muster.View
	// Stale is that of stale.
	Stale time.Duration

	entry  *entry
	only   *change // the one change of entry that counts; nil: those stream carries
	stream *Stream
}

// each calls fn for the changes of m until it returns false.
func (m *Message) each(fn func(*change) bool) {
	if m.only != nil {
		fn(m.only)
		return
	}
	if m.entry == nil {
		return
	}
	for _, c := range m.entry.changes {
		if m.stream.sel.match(c.key) && !fn(c) {
			return
		}
	}
}

// Events yields the events of a change that m's stream carries, in order.
func (m *Message) Events(yield func(*muster.Event) bool) {
	m.each(func(c *change) bool {
		for _, e := range c.events {
			if !yield(e) {
				return false
			}
		}
		return true
	})
}

// Format is how messages are rendered.
type Format uint8

const (
	// SSE is text/event-stream: the kind is the event, the index the id.
	SSE Format = iota
	// NDJSON is application/x-ndjson: {"type":KIND,"id":INDEX,"data":DATA} a line, the
	// data being that of SSE.
	NDJSON
)

// Frame yields the rendering of m in pieces, to be written one after the other.
// The large ones are shared by all streams and must not be changed; the others
// are good until the next.
func (m *Message) Frame(f Format) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if m.Kind == KindKeepAlive {
			yield(keepAlives[f])
			return
		}
		b := m.head(make([]byte, 0, 96), f)
		switch m.Kind {
		case KindSnapshot, KindResync:
			if !yield(b) || !yield(m.View.JSON()) {
				return
			}
			b = b[:0]
		case KindSynced:
			b = append(strconv.AppendUint(append(b, `{"index":`...), m.Index, 10), '}')
		case KindStale:
			b = append(strconv.AppendInt(append(b, `{"stale_ms":`...), m.Stale.Milliseconds(), 10), '}')
		case KindGoodbye:
			b = append(b, `{"reason":"shutting_down"}`...)
		case KindChange:
			b = append(strconv.AppendUint(append(b, `{"index":`...), m.Index, 10), `,"events":[`...)
			whole := true
			m.each(func(c *change) bool {
				whole = yield(b) && yield(c.json(m.stream.hub))
				b = append(b[:0], ',')
				return whole
			})
			if !whole {
				return
			}
			b = append(b[:0], `]}`...)
		}
		yield(append(b, tails[f]...))
	}
}

var (
	keepAlives = [...][]byte{SSE: []byte(": keep-alive\n\n"), NDJSON: []byte(`{"type":"keepalive"}` + "\n")}
	tails      = [...]string{SSE: "\n\n", NDJSON: "}\n"}
)

// head appends what comes before the data.
func (m *Message) head(b []byte, f Format) []byte {
	if f == NDJSON {
		b = append(append(append(b, `{"type":"`...), m.Kind...), '"')
		if m.Index > 0 {
			b = strconv.AppendUint(append(b, `,"id":`...), m.Index, 10)
		}
		return append(b, `,"data":`...)
	}
	if m.Index > 0 {
		b = append(strconv.AppendUint(append(b, "id: "...), m.Index, 10), '\n')
	}
	b = append(append(b, "event: "...), m.Kind...)
	return append(b, "\ndata: "...)
}

// Append appends the rendering of m to b.
func (m *Message) Append(b []byte, f Format) []byte {
	for piece := range m.Frame(f) {
		b = append(b, piece...)
	}
	return b
}

// writeMost is how much one WriteTo writes before it leaves the rest to the next,
// so that a deadline is for about as much; one message may be larger.
const writeMost = 64 << 10

// WriteTo writes what Wait has waited for, and what is ready after it up to about
// 64 KiB, in the stream's format. It keeps no copy of what is shared: a reader
// that is stuck costs no more than the bytes that all share. After an error of w
// the stream is to be closed. It is an io.WriterTo.
func (s *Stream) WriteTo(w io.Writer) (n int64, err error) {
	for s.held.Kind != "" {
		for piece := range s.held.Frame(s.format) {
			wrote, err := w.Write(piece)
			n += int64(wrote)
			if err != nil {
				return n, err
			}
		}
		s.held = Message{}
		if n < writeMost {
			s.held, _ = s.Ready()
		}
	}
	return n, nil
}
