package httpapi_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
)

// TestShutdown: what is in flight ends well, and what only waits answers at once.
func TestShutdown(t *testing.T) {
	f := newFixture(t, nil)
	stop := f.run(t)
	do(t, f, "PUT", "/v1/services/web/instances/a", plain)
	const many = 20
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			resp, body := do(t, f, "GET", "/v1/services/web?index=1&wait=10m", "")
			if resp.StatusCode != 200 || resp.Header.Get("Muster-Index") != "1" || !strings.Contains(body, `"id":"a"`) {
				t.Errorf("an open poll was answered %d %s", resp.StatusCode, body)
			}
		})
	}
	f.await(t, "muster_httpapi_waiting_polls", func(n float64) bool { return n == many })
	start := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("stopped after %s", took)
	}
	if _, err := net.Dial("tcp", f.addr); err == nil {
		t.Error("connections are still taken")
	}
}

// TestShutdownCutsOff: what does not end within the drain is cut off, and Run
// still waits for it.
func TestShutdownCutsOff(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config, _ *httpapi.Deps) { c.Drain = 100 * time.Millisecond })
	f.registry.blocks = true
	stop := f.run(t)
	conn := dial(t, f)
	fmt.Fprintf(conn, "PUT /v1/services/web/instances/a?timeout=60s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(plain), plain)
	f.await(t, "muster_httpapi_in_flight_requests", func(n float64) bool { return n == 1 })
	start := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < 100*time.Millisecond || took > 3*time.Second {
		t.Errorf("stopped after %s", took)
	}
}

// TestShutdownCutsOffStreams: a stream that nobody ends, and one that nobody
// reads, are cut off too.
func TestShutdownCutsOffStreams(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config, _ *httpapi.Deps) { c.Drain = 100 * time.Millisecond })
	f.registry.streams = make(chan string)
	stop := f.run(t)
	conn := dial(t, f)
	fmt.Fprint(conn, "GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
	// More than any socket buffer holds: it is taken from the channel, and stuck.
	f.registry.streams <- strings.Repeat("x", 64<<20)
	waiting := openWatch(t, f.addr, "/v1/watch")
	f.await(t, "muster_httpapi_in_flight_requests", func(n float64) bool { return n == 2 })
	start := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < 100*time.Millisecond || took > 5*time.Second {
		t.Errorf("stopped after %s", took)
	}
	if got := f.registry.closedStreams(); got != 2 {
		t.Errorf("%d of 2 streams were closed", got)
	}
	if _, err := io.Copy(io.Discard, waiting.Body); err != nil {
		t.Errorf("the end of a stream: %v", err)
	}
}

func TestRunEndsWithItsListener(t *testing.T) {
	var l net.Listener
	f := newFixture(t, func(_ *httpapi.Config, d *httpapi.Deps) { l = d.Listener })
	ended := make(chan error, 1)
	go func() { ended <- f.server.Run(t.Context()) }()
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, edit := range map[string]func(*httpapi.Config, *httpapi.Deps){
		"no listener": func(_ *httpapi.Config, d *httpapi.Deps) { d.Listener = nil },
		"no registry": func(_ *httpapi.Config, d *httpapi.Deps) { d.Registry = nil },
		"no leases":   func(_ *httpapi.Config, d *httpapi.Deps) { d.Leases = nil },
		"no watches":  func(_ *httpapi.Config, d *httpapi.Deps) { d.Watches = nil },
		"no backups":  func(_ *httpapi.Config, d *httpapi.Deps) { d.Backups = nil },
		"no settings": func(_ *httpapi.Config, d *httpapi.Deps) { d.Settings = nil },
		"no streams":  func(c *httpapi.Config, _ *httpapi.Deps) { c.StreamsPerAddress = -1 },
		"no conns":    func(c *httpapi.Config, _ *httpapi.Deps) { c.ConnectionsPerAddress = -1 },
		"no cluster":  func(_ *httpapi.Config, d *httpapi.Deps) { d.Cluster = nil },
		"no balancer": func(_ *httpapi.Config, d *httpapi.Deps) { d.Balancer = nil },
		"no tickets":  func(_ *httpapi.Config, d *httpapi.Deps) { d.Tickets = nil },
		"long drain":  func(c *httpapi.Config, _ *httpapi.Deps) { c.Drain = time.Hour },
	} {
		cfg, deps := httpapi.Config{}, depsOf(nowhere{}, newMemory())
		edit(&cfg, &deps)
		if _, err := httpapi.New(cfg, deps); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestStuckReader: a client that never reads its answers is dropped after the
// write deadline.
func TestStuckReader(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the write deadline")
	}
	t.Parallel()
	f := newFixture(t, nil)
	for i := range 3000 {
		inst := &muster.Instance{Service: "web", ID: fmt.Sprintf("i-%d", i), Address: "10.0.0.5", Port: 80}
		if _, err := f.registry.Register(t.Context(), muster.Caller{}, inst, muster.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	f.run(t)
	conn := dial(t, f)
	if err := conn.SetDeadline(time.Now().Add(40 * time.Second)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	// More answers than any socket buffer holds.
	fmt.Fprint(conn, strings.Repeat("GET /v1/services/web HTTP/1.1\r\nHost: localhost\r\n\r\n", 50))
	f.await(t, "muster_httpapi_in_flight_requests", func(n float64) bool { return n == 0 && time.Since(start) > time.Second })
	if took := time.Since(start); took < 9*time.Second {
		t.Errorf("dropped after %s already", took)
	}
}

// TestIdleConnection: a connection that was idle for longer than a write may take is
// still answered, also where net/http does so by itself.
func TestIdleConnection(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the write deadline")
	}
	t.Parallel()
	f := newFixture(t, nil)
	f.run(t)
	for _, next := range []string{"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /livez HTTP/9.9\r\n\r\n"} {
		t.Run(clipped(next), func(t *testing.T) {
			t.Parallel()
			conn := dial(t, f)
			if err := conn.SetDeadline(time.Now().Add(40 * time.Second)); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(conn)
			ask := func(request string) *http.Response {
				t.Helper()
				fmt.Fprint(conn, request)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("%q: %v", request, err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Fatal(err)
				}
				return resp
			}
			ask("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
			idle := time.NewTimer(11 * time.Second)
			<-idle.C
			ask(next)
		})
	}
}
