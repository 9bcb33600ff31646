package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// quietFor is how long a stream may be silent: two of the keep-alives that a node
	// sends every 15 s may be late.
	quietFor = 45 * time.Second
	// mostNames is how long the names of services may be in a URL. Longer, and the
	// whole namespace is asked for.
	mostNames = 6 << 10
)

// message is one line of a stream.
type message struct {
	Type string          `json:"type"`
	ID   uint64          `json:"id"`
	Data json.RawMessage `json:"data"`
}

// stream follows the watched services on one node until that or ctx ends, or others
// are watched. It always returns why.
func (f *feed) stream(ctx context.Context, nd *node, at *position) error {
	watched := f.watched()
	ctx, done := f.opened(ctx, watched)
	defer done()
	if err := f.complete(ctx, watched, at); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	silent := time.AfterFunc(f.c.cfg.AttemptTimeout, func() { end(errSilent) })
	defer silent.Stop()
	resp, err := f.open(ctx, nd, watched, *at)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	defer resp.Body.Close()
	silent.Stop()
	at.cluster = resp.Header.Get("Muster-Cluster")
	f.connected(0)
	r := &reader{feed: f, node: nd, at: at, watched: watched, seen: map[string]bool{}, end: end}
	err = r.read(bufio.NewReaderSize(resp.Body, 64<<10))
	r.stop()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if !r.heard && errors.Is(err, errQuiet) {
		return muster.Errorf(muster.CodeInternal, "%s opened a stream and sent nothing on it", nd.base).
			WithHint("a proxy that holds answers back may stand between")
	}
	return err
}

// complete reads the services that came to be watched since the stream began, so
// that it can go on from where it is for all. Where that fails it begins anew.
func (f *feed) complete(ctx context.Context, watched map[string]*entry, at *position) error {
	if at.cursor == 0 {
		return nil
	}
	for name, e := range watched {
		if _, ok := e.has(); ok {
			continue
		}
		// min_index carried along is at least the cursor: what the stream does not
		// tell any more is in the view.
		var info muster.ReadInfo
		v, err := f.c.Service(ctx, name, In(f.namespace), Info(&info))
		if err == nil {
			v, err = checked(v, e.key)
		}
		switch {
		case err == nil:
			e.full(v, false)
		case isUnknown(err):
			e.unknown(0, false)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			at.cursor = 0
			return nil
		}
	}
	return nil
}

// open asks a node for a stream.
func (f *feed) open(ctx context.Context, nd *node, watched map[string]*entry, at position) (*http.Response, error) {
	q := url.Values{"namespace": {f.namespace}}
	length := 0
	for name := range watched {
		q.Add("service", name)
		length += len("&service=") + len(name)
	}
	if slices.Sort(q["service"]); length > mostNames {
		q.Del("service")
	}
	if at.cursor > 0 {
		q.Set("from", strconv.FormatUint(at.cursor, 10))
		if at.cluster != "" {
			q.Set("cluster", at.cluster)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, nd.base+"/v1/watch?"+q.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	req.Header.Set("User-Agent", f.c.cfg.UserAgent)
	resp, err := f.c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking %s for a stream: %w", nd.base, err)
	}
	if resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/x-ndjson") {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 {
		return nil, muster.Errorf(muster.CodeInternal, "%s answered %d with %q instead of a stream", nd.base, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, muster.MaxBodyBytes))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", nd.base, err)
	}
	return nil, errorOf(&answer{status: resp.StatusCode, header: resp.Header, body: body})
}

// reader reads one stream.
type reader struct {
	feed    *feed
	node    *node
	at      *position
	watched map[string]*entry
	seen    map[string]bool // services whose view came since the last synced
	end     context.CancelCauseFunc
	heard   bool        // a message came that says that the node is well
	move    *time.Timer // while the node is stale: another one may be there
}

func (r *reader) stop() {
	if r.move != nil {
		r.move.Stop()
	}
}

// read reads messages until the stream ends.
func (r *reader) read(lines *bufio.Reader) error {
	quiet := time.AfterFunc(quietFor, func() { r.end(errQuiet) })
	defer quiet.Stop()
	for {
		line, err := readLine(lines)
		if err != nil {
			return fmt.Errorf("the stream of %s broke: %w", r.node.base, err)
		}
		quiet.Reset(quietFor)
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			return fmt.Errorf("%s sent what is no message: %w", r.node.base, err)
		}
		if err := r.take(&m); err != nil {
			return err
		}
	}
}

// readLine reads one line, of bounded length.
func readLine(lines *bufio.Reader) ([]byte, error) {
	var long []byte
	for {
		part, err := lines.ReadSlice('\n')
		if err == nil && long == nil {
			return part, nil
		}
		long = append(long, part...)
		if err == nil {
			return long, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if len(long) > maxAnswer {
			return nil, fmt.Errorf("a message is longer than %d bytes", maxAnswer)
		}
	}
}

// take takes in one message.
func (r *reader) take(m *message) error {
	if !r.heard && m.Type != "stale" && m.Type != "goodbye" {
		r.heard = true
		r.feed.c.nodes.served(r.node)
	}
	switch m.Type {
	case "snapshot", "resync":
		v := new(muster.View)
		if err := json.Unmarshal(m.Data, v); err != nil {
			return fmt.Errorf("%s sent a view that cannot be read: %w", r.node.base, err)
		}
		return r.view(v)
	case "synced":
		for name, e := range r.watched {
			if !r.seen[name] {
				e.unknown(m.ID, r.at.anew)
			}
		}
		clear(r.seen)
		r.at.anew = false
		r.reach(m.ID)
	case "change":
		var c struct {
			Events []*muster.Event `json:"events"`
		}
		if err := json.Unmarshal(m.Data, &c); err != nil {
			return fmt.Errorf("%s sent a change that cannot be read: %w", r.node.base, err)
		}
		if slices.Contains(c.Events, nil) {
			return fmt.Errorf("%s sent a change with nothing in it", r.node.base)
		}
		for _, e := range c.Events {
			displace(e.Instance)
		}
		r.change(c.Events)
		r.reach(m.ID)
	case "stale":
		var s struct {
			MS int64 `json:"stale_ms"`
		}
		if err := json.Unmarshal(m.Data, &s); err != nil {
			return fmt.Errorf("%s sent an age that cannot be read: %w", r.node.base, err)
		}
		return r.stale(time.Duration(s.MS) * time.Millisecond)
	case "goodbye":
		return errGoodbye
	}
	return nil // a keep-alive, or a kind of a newer server
}

// reach notes the index up to which all is known.
func (r *reader) reach(index uint64) {
	r.at.cursor = index
	r.feed.c.seen.note(r.at.cluster, index)
}

func (r *reader) view(v *muster.View) error {
	e := r.watched[v.Service]
	if e == nil {
		return nil
	}
	v, err := checked(v, e.key)
	if err != nil {
		return fmt.Errorf("%s: %w", r.node.base, err)
	}
	r.seen[v.Service] = true
	e.full(v, r.at.anew)
	return nil
}

// change hands the events of one log entry to their services, each once.
func (r *reader) change(events []*muster.Event) {
	for len(events) > 0 {
		service := events[0].Service
		mine := slices.Clone(events)
		mine = slices.DeleteFunc(mine, func(e *muster.Event) bool { return e.Service != service })
		events = slices.DeleteFunc(slices.Clone(events), func(e *muster.Event) bool { return e.Service == service })
		if e := r.watched[service]; e != nil {
			e.change(mine)
		}
	}
}

// stale moves to another node when this one is cut off, as soon as one is there
// that did not fail lately.
func (r *reader) stale(age time.Duration) error {
	r.feed.connected(age)
	r.stop()
	if age == 0 {
		return nil
	}
	other, next := r.feed.c.nodes.another(r.node, time.Now())
	if other != nil {
		return errStale
	}
	r.move = time.AfterFunc(next, func() { r.end(errStale) })
	return nil
}
