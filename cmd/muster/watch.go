package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

const (
	// streamSilence is how long a stream may say nothing at all before its node is
	// taken to be gone; a keep-alive comes every 15 s.
	streamSilence = 40 * time.Second
	// retryLeast and retryMost bound the wait after no node has answered.
	retryLeast = 200 * time.Millisecond
	retryMost  = 3 * time.Second
	// stayStale is how long a node is given before its being cut off from the leader
	// is a reason to ask another: the others may be no better.
	stayStale = 5 * time.Second
)

func newWatch(g *global) *cobra.Command {
	var namespace, prefix string
	var from uint64
	cmd := &cobra.Command{
		Use:   "watch [SERVICE...]",
		Short: "Follow services: print every change as it comes",
		Long: `Print what is there, and then every change as it comes, until ctrl-C.

Each line begins with what became of the instance: = it is there, + it came, ~ it
changed, - it went. Without a SERVICE all of the namespace are followed. When a node
goes away the next of --addr is asked, from where the last one stopped: no change is
printed twice and none is left out. With -o json each line is one message of
GET /v1/watch.`,
		Example: `  muster watch web
  muster watch web api --addr 10.0.1.1:7400,10.0.1.2:7400,10.0.1.3:7400
  muster watch --prefix pay- -o json | jq -c 'select(.type == "change") | .data.events[]'`,
		Args: cobra.ArbitraryArgs,

		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return complete(g, serviceNames)(cmd, nil, typed) // any number of them
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && prefix != "" {
				return usageError("name services or a --prefix, not both")
			}
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			w := newWatcher(a, cmd.ErrOrStderr())
			w.query = query("namespace", namespace, "prefix", prefix)
			for _, name := range args {
				w.query.Add("service", name)
			}
			w.cursor = from
			if g.output == "json" {
				w.show = func(_ *message, line []byte) error {
					_, err := cmd.OutOrStdout().Write(line)
					return err
				}
			} else {
				w.show = newChangePrinter(cmd.OutOrStdout(), useColour(cmd.OutOrStdout())).show
			}
			if err := w.run(cmd.Context()); cmd.Context().Err() == nil {
				return err
			}
			return nil
		},
	}
	namespaceFlag(cmd, &namespace)
	cmd.Flags().StringVar(&prefix, "prefix", "", "follow all services whose name starts so")
	cmd.Flags().Uint64Var(&from, "from", 0, "print only what came after this index")
	return cmd
}

// message is one message of GET /v1/watch.
type message struct {
	Type string          `json:"type"`
	ID   uint64          `json:"id"`
	Data json.RawMessage `json:"data"`
}

// watcher follows a stream from node to node.
type watcher struct {
	addrs  []string
	client *http.Client
	query  url.Values
	notes  io.Writer // for people, beside what is shown
	// show is given each message but keep-alives, and the line it came in.
	show func(m *message, line []byte) error

	next    int       // of addrs, to be asked next
	cursor  uint64    // up to which all was shown; 0: nothing yet
	cluster string    // that the cursor is of; "" if that is not known
	known   bool      // a stream has been open
	moved   time.Time // when the latest was opened
}

func newWatcher(a *api, notes io.Writer) *watcher {
	client := *a.http
	client.Timeout = 0
	return &watcher{addrs: a.addrs, client: &client, notes: notes}
}

// errMove asks for the next node.
var errMove = errors.New("another node may know more")

// run follows until ctx ends, or until something happens that another try would
// not mend.
func (w *watcher) run(ctx context.Context) error {
	var round []error // of the nodes that were of no use, until all have been asked
	wait, said := retryLeast, false
	for ctx.Err() == nil {
		addr := w.addrs[w.next%len(w.addrs)]
		w.next++
		begun := time.Now()
		opened, err := w.follow(ctx, addr)
		switch {
		case ctx.Err() != nil || isFinal(err):
			return err
		case opened:
			fmt.Fprintf(w.notes, "muster: %s: %v; going on from index %d\n", hostOf(addr), err, w.cursor)
			if time.Since(begun) > retryMost {
				round, wait, said = nil, retryLeast, false
				continue
			}
		case w.known && muster.CodeOf(err) == muster.CodeCursorGone:
			fmt.Fprintf(w.notes, "muster: %s does not know index %d (%v); starting again\n", hostOf(addr), w.cursor, err)
			w.cursor, w.cluster = 0, ""
		}
		if round = append(round, err); len(round) < len(w.addrs) {
			continue
		}
		if !w.known {
			return w.unreachable(round)
		}
		if !said {
			fmt.Fprintf(w.notes, "muster: no node answers (%v); trying on\n", err)
		}
		select {
		case <-ctx.Done():
		case <-time.NewTimer(wait/2 + rand.N(wait/2)).C:
		}
		round, wait, said = nil, min(2*wait, retryMost), true
	}
	return ctx.Err()
}

// unreachable is the error where there never was a stream: what a node has said,
// if one has said something.
func (w *watcher) unreachable(round []error) error {
	for _, err := range round {
		if _, ok := errors.AsType[*muster.Error](err); ok {
			return err
		}
	}
	return noAnswer(round)
}

// isFinal reports whether asking again, or asking another node, is of no use.
func isFinal(err error) bool {
	if _, ok := errors.AsType[*showError](err); ok {
		return true
	}
	e, ok := errors.AsType[*muster.Error](err)
	return ok && problem.Status(e.Code) < 500 && e.Code != muster.CodeCursorGone && e.Code != muster.CodeRateLimited
}

// showError is an error of whoever is shown the messages.
type showError struct{ err error }

func (e *showError) Error() string { return "writing what was seen: " + e.err.Error() }
func (e *showError) Unwrap() error { return e.err }

// follow follows the stream of one node to its end, and reports whether there was
// one.
func (w *watcher) follow(ctx context.Context, addr string) (opened bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(streamSilence, func() { cancel(fmt.Errorf("has said nothing for %s", streamSilence)) })
	defer silence.Stop()
	resp, err := w.ask(ctx, addr)
	if err != nil {
		return false, cmpCause(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return false, fmt.Errorf("reading the answer: %w", err)
		}
		return false, problem.Decode(resp.StatusCode, b)
	}
	w.cluster = resp.Header.Get("Muster-Cluster")
	w.known, w.moved = true, time.Now()
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil { // a line that was cut off is none
			return true, cmpCause(ctx, fmt.Errorf("the stream broke off: %w", err))
		}
		silence.Reset(streamSilence)
		if err := w.take(line); err != nil {
			return true, err
		}
	}
}

// cmpCause prefers the reason why a context was ended to what came of it.
func cmpCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (w *watcher) ask(ctx context.Context, addr string) (*http.Response, error) {
	q := query("cluster", w.cluster)
	for k, v := range w.query {
		q[k] = v
	}
	target := addr + "/v1/watch"
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	req.Header.Set("User-Agent", "muster/"+version)
	if w.cursor > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatUint(w.cursor, 10))
	}
	return w.client.Do(req)
}

// take deals with one line of a stream.
func (w *watcher) take(line []byte) error {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return fmt.Errorf("what came is not what a Muster node sends: %w", err)
	}
	if m.Type == "keepalive" {
		return nil
	}
	if err := w.show(&m, line); err != nil {
		return &showError{err}
	}
	w.cursor = max(w.cursor, m.ID)
	switch m.Type {
	case "goodbye":
		return errors.New("the node stops")
	case "stale":
		return w.stale(m.Data)
	}
	return nil
}

// stale says how old the node's state is, and asks for another node where there
// is one.
func (w *watcher) stale(data []byte) error {
	var d struct {
		MS int64 `json:"stale_ms"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("what came is not what a Muster node sends: %w", err)
	}
	age := time.Duration(d.MS) * time.Millisecond
	if age == 0 {
		fmt.Fprintln(w.notes, "muster: the node is current again")
		return nil
	}
	fmt.Fprintf(w.notes, "muster: the node is cut off from the leader; what it knows is %s old\n", age.Round(100*time.Millisecond))
	if len(w.addrs) > 1 && time.Since(w.moved) > stayStale {
		return errMove
	}
	return nil
}

func hostOf(addr string) string {
	_, host, _ := strings.Cut(addr, "://")
	return host
}
