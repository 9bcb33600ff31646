package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// watching is a "muster watch" that runs.
type watching struct {
	t         testing.TB
	out, errs syncBuffer
	stop      context.CancelFunc
	code      chan int
}

func startWatch(t testing.TB, args ...string) *watching {
	t.Helper()
	w := &watching{t: t, code: make(chan int, 1)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	w.stop = cancel
	go func() { w.code <- run(ctx, append([]string{"watch"}, args...), &w.out, &w.errs) }()
	t.Cleanup(cancel)
	return w
}

// await waits until what was printed, or said on stderr, matches.
func (w *watching) await(in *syncBuffer, pattern string) {
	w.t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); !re.MatchString(in.String()); <-tick.C {
		if time.Since(start) > patience {
			w.t.Fatalf("waited for %q\nstdout:\n%s\nstderr:\n%s", pattern, w.out.String(), w.errs.String())
		}
	}
}

// end is ctrl-C.
func (w *watching) end() {
	w.t.Helper()
	w.stop()
	if code := <-w.code; code != exitOK {
		w.t.Errorf("ended with %d: %s", code, w.errs.String())
	}
}

// TestWatchGoesOn: what is followed is followed to the next node when one dies
// and when one stops, and no change is printed twice or not at all.
func TestWatchGoesOn(t *testing.T) {
	nodes := newCluster(t, 3)
	var addrs []string
	for _, p := range nodes {
		p.start()
		addrs = append(addrs, p.url)
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	n := 0
	put := func(at *process) string {
		t.Helper()
		n++
		var errs bytes.Buffer
		id := fmt.Sprintf("i%d", n)
		code := run(t.Context(), []string{"register", "web", "--addr", at.url, "--id", id, "--address", "10.0.0.5", "--port", "80", "--ttl", "none"}, &bytes.Buffer{}, &errs)
		if code != exitOK {
			t.Fatalf("registering %s: %s", id, &errs)
		}
		return id
	}
	put(nodes[0])
	text := startWatch(t, "web", "--addr", strings.Join(addrs, ","))
	lines := startWatch(t, "--prefix", "w", "-o", "json", "--addr", strings.Join(addrs, ","))
	text.await(&text.out, `^= .* web/i1 +10\.0\.0\.5:80 +up +registered$`)
	lines.await(&lines.out, `^\{"type":"synced"`)
	both := func(id string) {
		t.Helper()
		text.await(&text.out, `^\+ .* web/`+id+` `)
		lines.await(&lines.out, `"id":"`+id+`"`)
	}
	both(put(nodes[2]))
	nodes[0].signal(syscall.SIGKILL)
	nodes[0].wait()
	leaderOf(t, nodes[1:])
	both(put(nodes[2]))
	text.await(&text.errs, `going on from index`)
	nodes[0].start()
	nodes[0].waitReady("?require=leader")
	nodes[1].signal(syscall.SIGTERM)
	text.await(&text.errs, `the node stops; going on from index`)
	nodes[1].wait()
	leaderOf(t, []*process{nodes[0], nodes[2]})
	both(put(nodes[0]))
	text.end()
	lines.end()

	for i := 1; i <= n; i++ {
		if got := strings.Count(text.out.String(), fmt.Sprintf(" web/i%d ", i)); got != 1 {
			t.Errorf("i%d was printed %d times:\n%s", i, got, text.out.String())
		}
	}
	last := uint64(0)
	for line := range strings.Lines(lines.out.String()) {
		var m message
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if m.Type == "change" && m.ID <= last {
			t.Errorf("%d comes after %d", m.ID, last)
		}
		last = max(last, m.ID)
	}
	if strings.Contains(text.out.String(), "\x1b") {
		t.Error("colours where there is no terminal")
	}
}

// scripted is a node that gives each caller the next answer, and keeps what it
// was asked.
type scripted struct {
	*httptest.Server
	mu      sync.Mutex
	answers []string
	asked   []string
}

func newScripted(t *testing.T, answers ...string) *scripted {
	s := &scripted{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.RawQuery+" "+r.Header.Get("Last-Event-ID"))
		var answer string
		if len(s.answers) > 0 {
			answer, s.answers = s.answers[0], s.answers[1:]
		}
		s.mu.Unlock()
		if answer == "gone" {
			w.WriteHeader(http.StatusGone)
			fmt.Fprint(w, `{"code":"cursor_gone","status":410,"detail":"never heard of it"}`)
			return
		}
		w.Header().Set("Muster-Cluster", "c1")
		fmt.Fprint(w, answer)
		if answer == "" {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *scripted) queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func viewOf(service string, instances ...string) string {
	return fmt.Sprintf(`{"namespace":"default","service":%q,"index":5,"instances":[%s],"empty_reason":"expired"}`, service, strings.Join(instances, ","))
}

func instanceOf(id string, modify int) string {
	return fmt.Sprintf(`{"namespace":"default","service":"web","id":%q,"address":"10.0.0.1","port":80,"status":"up","status_cause":"registered","modify_index":%d}`, id, modify)
}

// TestWatchAgain: what a stream that is not resumed shows again is printed as what
// is different, and a cursor that nobody knows is given up.
func TestWatchAgain(t *testing.T) {
	node := newScripted(t,
		`{"type":"snapshot","data":`+viewOf("web", instanceOf("a", 1), instanceOf("b", 2))+"}\n"+
			`{"type":"snapshot","data":`+viewOf("wax", instanceOf("x", 1))+"}\n"+
			`{"type":"synced","id":5,"data":{"index":5}}`+"\n"+`{"type":"goodbye","data":{"reason":"shutting_down"}}`+"\n",
		`{"type":"resync","data":`+viewOf("web", instanceOf("b", 7), instanceOf("c", 8))+"}\n"+
			`{"type":"synced","id":9,"data":{"index":9}}`+"\n"+`{"type":"change","id":10,"da`, // cut off
		"gone",
		`{"type":"snapshot","data":`+viewOf("web", instanceOf("c", 8))+"}\n"+
			`{"type":"synced","id":4,"data":{"index":4}}`+"\n"+
			`{"type":"change","id":6,"data":{"index":6,"events":[{"namespace":"default","service":"web","type":"settings","cause":"configured","actor":"ip:10.0.0.9"}]}}`+"\n",
	)
	w := startWatch(t, "--prefix", "w", "--addr", node.URL)
	w.await(&w.out, "configured")
	w.await(&w.errs, "from index 6")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); len(node.queries()) < 5; <-tick.C {
		if time.Since(start) > patience {
			t.Fatalf("asked only %q", node.queries())
		}
	}
	w.end()
	got := regexp.MustCompile(`(?m)\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +| {2,}`).ReplaceAllString(w.out.String(), " ")
	want := `= web/a 10.0.0.1:80 up registered
= web/b 10.0.0.1:80 up registered
= wax/x 10.0.0.1:80 up registered
~ web/b 10.0.0.1:80 up registered
+ web/c 10.0.0.1:80 up registered
- web/a 10.0.0.1:80 gone -
- wax/x 10.0.0.1:80 gone -
- web/b 10.0.0.1:80 gone -
~ web - settings configured ip:10.0.0.9
`
	if got = strings.ReplaceAll(got, "  ", " "); got != want {
		t.Errorf("printed\n%swant\n%s", got, want)
	}
	if got, want := node.queries()[:5], []string{"prefix=w ", "cluster=c1&prefix=w 5", "cluster=c1&prefix=w 9", "prefix=w ", "cluster=c1&prefix=w 6"}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
	if !strings.Contains(w.errs.String(), "starting again") {
		t.Errorf("said %s", w.errs.String())
	}
}

// TestWatchColour: the sign decides the colour, which ends with the line.
func TestWatchColour(t *testing.T) {
	var out bytes.Buffer
	p := newChangePrinter(&out, true)
	if err := p.show(&message{Type: "snapshot", Data: []byte(viewOf("web", instanceOf("a", 1)))}, nil); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "\x1b[2m= ") || !strings.HasSuffix(got, "registered\x1b[0m\n") {
		t.Errorf("got %q", got)
	}
}
