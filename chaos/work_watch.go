package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// watcher follows services by streams, or one by long polls. It changes nodes for no
// reason, breaks off in the middle and goes on from its cursor elsewhere. It is used
// by one goroutine at a time.
type watcher struct {
	c      *client
	sel    Select
	polls  bool
	cursor uint64
	err    error // what the harness could not read
}

// run follows until ctx ends or it is done.
func (w *watcher) run(ctx context.Context, done func() bool) {
	for ctx.Err() == nil && w.err == nil && !done() {
		if w.polls {
			w.poll(ctx)
			continue
		}
		w.visit(ctx, done)
		pause(ctx, 20*time.Millisecond)
	}
}

func (s *Select) query(cursor uint64) []string {
	var q []string
	for _, name := range s.Services {
		q = append(q, "service="+name)
	}
	if s.Prefix != "" {
		q = append(q, "prefix="+s.Prefix)
	}
	if cursor > 0 {
		q = append(q, fmt.Sprintf("from=%d", cursor))
	}
	return q
}

// visit opens a stream on some node for a while.
func (w *watcher) visit(ctx context.Context, done func() bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(200+w.c.rnd.IntN(6000))*time.Millisecond)
	defer cancel()
	if w.c.rnd.IntN(20) == 0 {
		w.cursor = 0 // afresh
	}
	c := w.c
	r := Record{Kind: KindOpen, Client: c.name, Node: c.node(), After: w.cursor, Select: &w.sel}
	now := time.Now()
	r.Wall, r.Call = now.UnixNano(), c.load.History.Since(now)
	sse := c.rnd.IntN(2) == 0
	resp, err := w.open(ctx, r.Node, sse)
	r.Return, r.Outcome = c.load.History.Since(time.Now()), OK
	switch {
	case err != nil:
		r.Outcome, r.Error = Fail, brief(err)
		c.shunned[r.Node] = time.Now().Add(shun)
	case resp.StatusCode != http.StatusOK:
		b, _ := io.ReadAll(resp.Body) // what came tells enough
		resp.Body.Close()
		r.Status = resp.StatusCode
		c.judge(&r, answer{resp.Header, b})
		c.shunned[r.Node] = time.Now().Add(shun / 4)
	}
	c.load.History.Add(&r)
	if r.Outcome != OK {
		pause(ctx, c.about(200*time.Millisecond))
		return
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for most := 1 + c.rnd.IntN(400); most > 0 && !done(); most-- {
		kind, data, ok := nextMessage(lines, sse)
		if !ok {
			return
		}
		if w.err = w.take(r.Node, kind, data); w.err != nil {
			return
		}
	}
}

func (w *watcher) open(ctx context.Context, node int, sse bool) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.c.load.URLs[node]+"/v1/watch?"+strings.Join(w.sel.query(w.cursor), "&"), nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	if !sse {
		req.Header.Set("Accept", "application/x-ndjson")
	}
	return w.c.http.Do(req)
}

// nextMessage reads a message that is not a keep-alive; what was cut off is none.
func nextMessage(lines *bufio.Reader, sse bool) (kind string, data []byte, ok bool) {
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return "", nil, false
		}
		line = line[:len(line)-1]
		if !sse {
			var m struct {
				Type string
				Data json.RawMessage
			}
			if json.Unmarshal(line, &m) != nil {
				return "garbled", line, true
			}
			if m.Type != "keepalive" {
				return m.Type, m.Data, true
			}
			continue
		}
		name, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			kind = value
		case "data":
			data = []byte(value)
		case "":
			if len(line) == 0 && kind != "" {
				return kind, data, true
			}
		}
	}
}

// take notes a message.
func (w *watcher) take(node int, kind string, data []byte) error {
	now := time.Now()
	r := Record{Kind: KindMessage, Client: w.c.name, Node: node, Wall: now.UnixNano(), Outcome: OK, Message: kind}
	r.Call = w.c.load.History.Since(now)
	r.Return = r.Call
	var err error
	switch kind {
	case "snapshot", "resync":
		r.Service, r.Index, r.Cells, err = viewOf(data)
	case "synced", "change":
		var m struct {
			Index  uint64
			Events []json.RawMessage
		}
		if err = json.Unmarshal(data, &m); err == nil {
			r.Events, err = eventsOf(m.Events)
		}
		r.Index = m.Index
		w.cursor = m.Index
	}
	if err != nil {
		return fmt.Errorf("a %s: %w: %s", kind, err, clipped(data))
	}
	w.c.load.History.Add(&r)
	return nil
}

// poll waits once for news of the service.
func (w *watcher) poll(ctx context.Context) {
	wait := time.Duration(1+w.c.rnd.IntN(4)) * time.Second
	r := Record{Kind: KindPoll, Node: w.c.node(), Service: w.sel.Services[0], After: w.cursor}
	a := w.c.try(ctx, &r, request{
		method: http.MethodGet, path: "/v1/services/" + r.Service,
		query: []string{"index=" + strconv.FormatUint(w.cursor, 10), "wait=" + wait.String()}, within: wait + 2*time.Second,
	})
	w.c.noteView(&r, a)
	w.c.load.History.Add(&r)
	if r.Outcome == OK {
		w.cursor = max(w.cursor, r.Index)
	} else {
		pause(ctx, w.c.about(200*time.Millisecond))
	}
}

// readJournal copies the journal of a node, as long as ctx lasts.
func (l *Load) readJournal(ctx context.Context, node int) {
	for pause(ctx, journalEvery) {
		l.pageJournal(ctx, node)
	}
}

// pageJournal reads what is new in the journal of a node.
func (l *Load) pageJournal(ctx context.Context, node int) bool {
	c := l.keepers[node]
	r := Record{Kind: KindEvents, Node: node, After: l.read[node]}
	a := c.try(ctx, &r, request{method: http.MethodGet, path: "/v1/events", query: []string{fmt.Sprintf("since=%d", r.After), "limit=1000"}})
	if r.Outcome == OK {
		var got struct {
			Index     uint64
			Events    []json.RawMessage
			Truncated bool
		}
		err := json.Unmarshal(a.body, &got)
		if err == nil {
			r.Events, err = eventsOf(got.Events)
		}
		r.Index, r.Truncated = got.Index, got.Truncated
		if err != nil {
			r.Outcome, r.Error = Unknown, err.Error()
		} else {
			l.read[node] = got.Index
		}
	}
	l.History.Add(&r)
	return r.Outcome == OK
}
