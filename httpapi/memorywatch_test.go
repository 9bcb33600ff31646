package httpapi_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
)

// memoryStream tells what there is, and then goodbye, or where the registry is
// told so nothing until somebody tells it to.
type memoryStream struct {
	m    *memory
	q    muster.WatchQuery
	next []string    // what the next WriteTo writes
	more chan string // what comes later; closed: the end
}

// Subscribe opens a stream that is open until its context ends if m.streams is
// set, and that ends by itself otherwise.
func (m *memory) Subscribe(ctx context.Context, q muster.WatchQuery) (httpapi.Stream, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if q.Cluster != "" && q.Cluster != "cluster-1" {
		return nil, muster.Errorf(muster.CodeCursorGone, "the cursor is of another cluster; this one is %q", "cluster-1")
	}
	if q.From > m.index {
		return nil, muster.Errorf(muster.CodeCursorGone, "index %d is ahead of all that this cluster has committed", q.From)
	}
	if len(q.Services) > 0 && q.Prefix != "" {
		return nil, muster.Errorf(muster.CodeConflictingField, "a watch names services or a prefix, not both")
	}
	s := &memoryStream{m: m, q: q, more: m.streams}
	if q.From == 0 {
		for _, name := range slices.Sorted(slices.Values(q.Services)) {
			v := m.views[muster.ServiceKey{Namespace: muster.DefaultNamespace, Service: name}]
			if v != nil {
				s.next = append(s.next, s.frame("snapshot", 0, string(v.JSON())))
			}
		}
		s.next = append(s.next, s.frame("synced", m.index, fmt.Sprintf(`{"index":%d}`, m.index)))
	}
	if s.more == nil {
		s.next = append(s.next, s.frame("goodbye", 0, `{"reason":"shutting_down"}`))
		s.more = make(chan string)
		close(s.more)
	}
	return s, nil
}

func (s *memoryStream) frame(kind string, id uint64, data string) string {
	var b strings.Builder
	if s.q.Lines {
		fmt.Fprintf(&b, `{"type":%q`, kind)
		if id > 0 {
			fmt.Fprintf(&b, `,"id":%d`, id)
		}
		fmt.Fprintf(&b, `,"data":%s}`+"\n", data)
		return b.String()
	}
	if id > 0 {
		fmt.Fprintf(&b, "id: %d\n", id)
	}
	fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", kind, data)
	return b.String()
}

func (s *memoryStream) Wait(ctx context.Context) error {
	if len(s.next) > 0 {
		return nil
	}
	select {
	case text, ok := <-s.more:
		if text == "panic" {
			panic("the stream broke")
		}
		if !ok {
			return io.EOF
		}
		s.next = append(s.next, text)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *memoryStream) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, strings.Join(s.next, ""))
	s.next = nil
	return int64(n), err
}

func (s *memoryStream) Close() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.closed++
}

func (m *memory) closedStreams() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}
