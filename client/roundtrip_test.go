package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
	"github.com/muster-registry/muster/client"
)

// fleet is a service of count instances, 10.0.0.1:80 and on, each of which answers
// with its number and what it was sent.
func fleet(w *world, r *registry, service string, count int) []*host {
	var hosts []*host
	for n := range count {
		addr := fmt.Sprintf("10.0.0.%d", n+1)
		hosts = append(hosts, w.add(addr+":80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%d %s %s %s", n+1, r.Method, r.Host, b)
		})))
		i := lasting(service, fmt.Sprintf("i-%d", n+1))
		i.Address, i.Port, i.Zone = addr, 80, fmt.Sprintf("z%d", n%2)
		r.put(i)
	}
	return hosts
}

// byName makes a client whose calls go through the world.
func byName(t *testing.T, w *world, nodes []*host, calls client.Calls) (*client.Client, *http.Client) {
	t.Helper()
	calls.Transport = w
	c := newClient(t, w, nodes, func(cfg *client.Config) { cfg.Calls = calls })
	return c, c.HTTPClient()
}

// get sends a request and returns status and body.
func get(ctx context.Context, h *http.Client, method, url, body string) (int, string, error) {
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return 0, "", err
	}
	resp, err := h.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestCallByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c, h := byName(t, w, w.nodes(r, 2), client.Calls{})
		fleet(w, r, "web", 3)
		count := map[string]int{}
		for range 30 {
			status, body, err := get(t.Context(), h, "POST", "http://web/x?y=z", "hello")
			if err != nil || status != 200 {
				t.Fatalf("%d %s %v", status, body, err)
			}
			who, rest, _ := strings.Cut(body, " ")
			if count[who]++; rest != "POST web hello" {
				t.Errorf("the instance was sent %q", rest)
			}
		}
		if len(count) != 3 || count["1"] != 10 {
			t.Errorf("round robin over three went %v", count)
		}
		for url, want := range map[string]muster.Code{
			"http://nobody/":  muster.CodeUnknownService,
			"http://web:80/":  muster.CodeInvalidPort,
			"http://-web-/":   muster.CodeInvalidName,
			"ftp://web/":      muster.CodeInvalidPath,
			"http://[::1]/":   muster.CodeInvalidName,
			"http://Nobody/x": muster.CodeUnknownService,
		} {
			if _, _, err := get(t.Context(), h, "GET", url, ""); muster.CodeOf(err) != want {
				t.Errorf("%s: %v, want %s", url, err, want)
			}
		}
		c.Close()
		if _, _, err := get(t.Context(), h, "GET", "http://web/", ""); !errors.Is(err, muster.CodeShuttingDown) {
			t.Errorf("by a closed client: %v", err)
		}
	})
}

// TestCallNamedPort: a call goes to the port that its URL names, or its context, of
// the instances that have it; the Host header names the service.
func TestCallNamedPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c, h := byName(t, w, w.nodes(r, 1), client.Calls{})
		fleet(w, r, "web", 3)
		for n := range 2 {
			i := r.find("web", fmt.Sprintf("i-%d", n+1))
			i.Ports = map[string]int{"admin": 9000 + n, "grpc.v2": 80}
			r.put(*i)
			w.add(fmt.Sprintf("%s:%d", i.Address, 9000+n), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprintf(w, "admin of %d %s", n+1, r.Host)
			}))
		}
		who := map[string]int{}
		for range 10 {
			_, body, err := get(t.Context(), h, "GET", "http://_admin.web/", "")
			if err != nil {
				t.Fatal(err)
			}
			who[body]++
		}
		if who["admin of 1 web"] != 5 || who["admin of 2 web"] != 5 {
			t.Errorf("round robin over two went %v", who)
		}
		ctx := client.WithPick(t.Context(), client.PickBy{Port: "grpc.v2"})
		for range 4 {
			if _, body, err := get(ctx, h, "GET", "http://web/", ""); err != nil || !strings.HasPrefix(body, "1 ") && !strings.HasPrefix(body, "2 ") {
				t.Errorf("by the context: %q %v", body, err)
			}
		}
		if _, body, err := get(ctx, h, "GET", "http://_admin.web/", ""); err != nil || !strings.HasPrefix(body, "admin") {
			t.Errorf("by both: %q %v", body, err)
		}
		for url, want := range map[string]muster.Code{
			"http://_metrics.web/": muster.CodeNoInstance,
			"http://_Admin.web/":   muster.CodeNoInstance,
			"http://_admin/":       muster.CodeInvalidName,
			"http://_.web/":        muster.CodeInvalidName,
			"http://_admin.nope/":  muster.CodeUnknownService,
		} {
			if _, _, err := get(t.Context(), h, "GET", url, ""); muster.CodeOf(err) != want {
				t.Errorf("%s: %v, want %s", url, err, want)
			}
		}
		// Where one of the two dies the other is called, and not the one without the port.
		w.mu.Lock()
		delete(w.hosts, "10.0.0.1:9000")
		w.mu.Unlock()
		for range 10 {
			if _, body, err := get(t.Context(), h, "GET", "http://_admin.web/", ""); err != nil || body != "admin of 2 web" {
				t.Errorf("with one dead: %q %v", body, err)
			}
		}
		c.Close()
	})
}

// TestCallRegistryDown: once a service is known, calls need no registry.
func TestCallRegistryDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		nodes := w.nodes(r, 2)
		_, h := byName(t, w, nodes, client.Calls{})
		fleet(w, r, "web", 2)
		for n := range 10 {
			if _, _, err := get(t.Context(), h, "GET", "http://web/", ""); err != nil {
				t.Fatalf("call %d: %v", n, err)
			}
			for _, n := range nodes {
				n.become(down)
			}
			time.Sleep(30 * time.Second)
		}
		if _, _, err := get(t.Context(), h, "GET", "http://other/", ""); !errors.Is(err, client.CodeUnreachable) {
			t.Errorf("a service nothing is known of: %v", err)
		}
	})
}

// TestCallRetries on another instance what is safe to repeat, and only that.
func TestCallRetries(t *testing.T) {
	noRewind := func(s string) io.Reader { return struct{ io.Reader }{strings.NewReader(s)} }
	for _, c := range []struct {
		name, method string
		mode         mode
		header       string
		body         func(string) io.Reader
		ok           bool
	}{
		{"nothing sent", "POST", down, "", nil, true},
		{"nothing sent, body gone", "POST", down, "", noRewind, false},
		{"GET broken", "GET", cut, "", nil, true},
		{"PUT broken", "PUT", cut, "", nil, true},
		{"PUT broken, body gone", "PUT", cut, "", noRewind, false},
		{"POST broken", "POST", cut, "", nil, false},
		{"POST broken, idempotent by key", "POST", cut, "Idempotency-Key", nil, true},
		{"GET refused", "GET", coded, "", nil, true},
		{"POST refused", "POST", coded, "", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := newWorld(), newRegistry()
				_, h := byName(t, w, w.nodes(r, 1), client.Calls{})
				hosts := fleet(w, r, "web", 2)
				hosts[0].turn(c.mode, muster.CodeNoLeader)
				failed := 0
				for range 4 { // two of which are picked for the one that misbehaves
					var body io.Reader = strings.NewReader("hello")
					if c.body != nil {
						body = c.body("hello")
					}
					req, err := http.NewRequestWithContext(t.Context(), c.method, "http://web/", body)
					if err != nil {
						t.Fatal(err)
					}
					if c.header != "" {
						req.Header.Set(c.header, "1")
					}
					resp, err := h.Do(req)
					if err != nil || resp.StatusCode != 200 {
						failed++
					}
					if err == nil {
						b, err := io.ReadAll(resp.Body)
						if err != nil || resp.StatusCode == 200 && !strings.HasSuffix(string(b), c.method+" web hello") {
							t.Errorf("%q %v", b, err)
						}
						resp.Body.Close()
					}
				}
				if (failed == 0) != c.ok {
					t.Errorf("%d of 4 calls failed, want none: %v", failed, c.ok)
				}
				if n := hosts[0].requests() + hosts[1].requests(); !c.ok && c.mode != down && n != 4 {
					t.Errorf("4 calls were sent %d times", n)
				}
			})
		})
	}
}

// TestCallRetryAfter: a lone instance that asks for time is given it.
func TestCallRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		_, h := byName(t, w, w.nodes(r, 1), client.Calls{})
		fleet(w, r, "web", 1)
		asked := 0
		w.add("10.0.0.1:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked == 1 {
				w.Header().Set("Retry-After", "3")
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		began := time.Now()
		if status, _, err := get(t.Context(), h, "GET", "http://web/", ""); err != nil || status != 200 || time.Since(began) < 3*time.Second {
			t.Errorf("%d %v after %s", status, err, time.Since(began))
		}
		asked = 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if status, _, err := get(ctx, h, "GET", "http://web/", ""); err != nil || status != 503 {
			t.Errorf("with no time to wait: %d %v, want the answer as it came", status, err)
		}
	})
}

// TestCallBudget: while all of a service fails, retries stay a tenth of its traffic.
func TestCallBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		_, h := byName(t, w, w.nodes(r, 1), client.Calls{})
		hosts := fleet(w, r, "web", 3)
		for _, i := range hosts {
			i.answer(muster.CodeOverloaded)
		}
		const calls = 1000
		for range calls {
			if status, _, err := get(t.Context(), h, "GET", "http://web/", ""); err != nil || status != 503 {
				t.Fatalf("%d %v", status, err)
			}
		}
		sent := 0
		for _, i := range hosts {
			sent += i.requests()
		}
		if sent < calls+calls/20 || sent > calls+calls*15/100 {
			t.Errorf("%d calls were sent %d times", calls, sent)
		}
	})
}

// TestCallEjects: an instance that fails is left out, and comes back.
func TestCallEjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c, h := byName(t, w, w.nodes(r, 1), client.Calls{Attempts: 1})
		hosts := fleet(w, r, "web", 4)
		watch := mustWatch(t, c, "web")
		hosts[0].answer(muster.CodeInternal)
		for range 100 {
			_, _, _ = get(t.Context(), h, "GET", "http://web/", "")
		}
		if n := hosts[0].requests(); n > 8 {
			t.Errorf("the one that fails was sent %d of 100", n)
		}
		st, err := watch.Stats()
		if err != nil || st.Ejected != 1 || st.Instances[0].State != balancer.Open || st.InFlight != 0 {
			t.Errorf("stats %+v %v", st, err)
		}
		hosts[0].become(works)
		time.Sleep(time.Minute)
		before := hosts[0].requests()
		for range 200 {
			if _, _, err := get(t.Context(), h, "GET", "http://web/", ""); err != nil {
				t.Fatal(err)
			}
		}
		if n := hosts[0].requests() - before; n < 20 {
			t.Errorf("it is well again and was sent %d of 200", n)
		}
	})
}

// TestCallSilentInstance: one that takes calls and never answers is passed over when
// its attempt is over, and avoided after some of them.
func TestCallSilentInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		_, h := byName(t, w, w.nodes(r, 1), client.Calls{AttemptTimeout: 100 * time.Millisecond})
		hosts := fleet(w, r, "web", 3)
		hosts[1].become(silent)
		for range 100 {
			began := time.Now()
			if status, _, err := get(t.Context(), h, "GET", "http://web/", ""); err != nil || status != 200 || time.Since(began) > time.Second {
				t.Fatalf("%d %v after %s", status, err, time.Since(began))
			}
		}
		if n := hosts[1].requests(); n > 8 {
			t.Errorf("it was sent %d", n)
		}
	})
}

// TestCallGivenUp says nothing of the instance; one that lets the time run out does.
func TestCallGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c, h := byName(t, w, w.nodes(r, 1), client.Calls{})
		hosts := fleet(w, r, "web", 1)
		hosts[0].become(silent)
		watch := mustWatch(t, c, "web")
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			if _, _, err := get(ctx, h, "GET", "http://web/", ""); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		if st, err := watch.Stats(); err != nil || st.InFlight != 0 || st.Instances[0].Failures != 0 {
			t.Errorf("after three that were given up: %+v %v", st, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := get(ctx, h, "GET", "http://web/", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if st, err := watch.Stats(); err != nil || st.InFlight != 0 || st.Instances[0].Failures != 1 {
			t.Errorf("after one whose time ran out: %+v %v", st, err)
		}
	})
}

// TestCallHedges: a slow instance costs no more than the hedge, and one answer is
// given.
func TestCallHedges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c, h := byName(t, w, w.nodes(r, 1), client.Calls{Hedge: 50 * time.Millisecond})
		fleet(w, r, "web", 3)
		var slow, bodies atomic.Int64
		w.add("10.0.0.1:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			slow.Add(1)
			select {
			case <-time.After(2 * time.Second):
			case <-r.Context().Done():
			}
		}))
		watch := mustWatch(t, c, "web")
		for range 60 {
			time.Sleep(time.Second) // the budget allows one a second
			began := time.Now()
			status, body, err := get(t.Context(), h, "PUT", "http://web/", "hello")
			if err != nil || status != 200 || time.Since(began) > 50*time.Millisecond {
				t.Fatalf("%d %v after %s", status, err, time.Since(began))
			}
			if strings.HasSuffix(body, "PUT web hello") {
				bodies.Add(1)
			}
		}
		if slow.Load() == 0 || bodies.Load() != 60 {
			t.Errorf("the slow one was sent %d, %d whole answers came", slow.Load(), bodies.Load())
		}
		// A POST is not safe to send twice.
		began := time.Now()
		for range 3 {
			if _, _, err := get(t.Context(), h, "POST", "http://web/", "x"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("three POSTs, one of them to the slow one, took %s", took)
		}
		synctest.Wait()
		if st, err := watch.Stats(); err != nil || st.InFlight != 0 {
			t.Errorf("stats %+v %v", st, err)
		}
	})
}

// TestCallInFlight: a call is in flight until its body is read or closed.
func TestCallInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c, h := byName(t, w, w.nodes(r, 1), client.Calls{})
		fleet(w, r, "web", 1)
		watch := mustWatch(t, c, "web")
		inFlight := func() int64 {
			st, err := watch.Stats()
			if err != nil {
				t.Fatal(err)
			}
			return st.InFlight
		}
		for _, finish := range []func(io.ReadCloser){
			func(b io.ReadCloser) { b.Close() },
			func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b) },
			func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b); b.Close(); b.Close() },
		} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://web/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := h.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if n := inFlight(); n != 1 {
				t.Errorf("before its body is read %d are in flight", n)
			}
			finish(resp.Body)
			if n := inFlight(); n != 0 {
				t.Errorf("after its body was read %d are in flight", n)
			}
			resp.Body.Close()
		}
	})
}

// TestPick goes by the settings of the service, the client's zone and what the pick
// itself asks for.
func TestPick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		nodes := w.nodes(r, 1)
		c := newClient(t, w, nodes, func(cfg *client.Config) { cfg.Zone = "z1" })
		watch := mustWatch(t, c, "web")
		if _, err := watch.Pick(client.PickBy{}); !errors.Is(err, client.CodeUnreachable) {
			t.Errorf("before anything is known: %v", err)
		}
		synctest.Wait()
		if _, err := watch.Pick(client.PickBy{}); !errors.Is(err, muster.CodeUnknownService) {
			t.Errorf("of an unknown service: %v", err)
		}
		fleet(w, r, "web", 4)
		synctest.Wait()
		for range 20 {
			ch, err := watch.Pick(client.PickBy{})
			if err != nil || ch.Instance.Zone != "z1" || ch.Strategy.Name() != muster.StrategyRoundRobin {
				t.Fatalf("%+v %v", ch, err)
			}
			if ch, err = watch.Pick(client.PickBy{Zone: "z0"}); err != nil || ch.Instance.Zone != "z0" {
				t.Fatalf("%+v %v", ch, err)
			}
			ch, err = watch.Pick(client.PickBy{Where: &muster.Query{Zone: "z0"}})
			if err != nil || ch.Instance.Zone != "z0" {
				t.Fatalf("%+v %v", ch, err)
			}
		}
		if _, err := watch.Pick(client.PickBy{Where: &muster.Query{Zone: "nowhere"}}); !errors.Is(err, muster.CodeNoInstance) {
			t.Errorf("nobody passes: %v", err)
		}
		for range 10 {
			ch, err := watch.Pick(client.PickBy{Where: &muster.Query{Zone: "z1", Filter: `id != "i-2" and port == 80`}})
			if err != nil || ch.Instance.ID != "i-4" {
				t.Fatalf("by an expression: %+v %v", ch, err)
			}
		}
		// What a query says when it is used counts, not what it said before.
		q, yes, no := &muster.Query{Zone: "z0", Tags: []string{}, Meta: map[string]string{}}, true, false
		for _, c := range []struct {
			change func()
			want   bool // somebody passes
		}{
			{func() {}, true}, {func() { q.Routable = &no }, false}, {func() { q.Routable = &yes }, true}, {func() { yes = false }, false},
			{func() { yes = true; q.Tags = append(q.Tags, "x") }, false}, {func() { q.Tags = nil; q.Meta["a"] = "b" }, false},
			{func() { delete(q.Meta, "a") }, true}, {func() { q.Status = muster.StatusDown }, false}, {func() { q.Status = ""; q.Version = "7" }, false},
		} {
			c.change()
			if _, err := watch.Pick(client.PickBy{Where: q}); (err == nil) != c.want {
				t.Errorf("by %s: %v, want somebody: %t", q.Key(), err, c.want)
			}
		}
		if _, err := watch.Pick(client.PickBy{Where: &muster.Query{Filter: "prt == 80"}}); !errors.Is(err, muster.CodeInvalidFilter) {
			t.Errorf("a bad expression: %v", err)
		}
		s := muster.DefaultSettings()
		s.Strategy = muster.StrategyConsistentHash
		r.configure("web", &s)
		synctest.Wait()
		if _, err := watch.Pick(client.PickBy{}); !errors.Is(err, muster.CodeInvalidStrategy) {
			t.Errorf("a hash without a key: %v", err)
		}
		a, err := watch.Pick(client.PickBy{Key: "k"})
		if err != nil || a.Strategy.Name() != muster.StrategyConsistentHash {
			t.Errorf("%+v %v", a, err)
		}
		// By name the key is the path, unless something else is wanted.
		_, h := byName(t, w, nodes, client.Calls{})
		where := func(ctx context.Context, path string) string {
			t.Helper()
			_, body, err := get(ctx, h, "GET", "http://web"+path, "")
			if err != nil {
				t.Fatal(err)
			}
			return body
		}
		for n := range 10 {
			path := fmt.Sprintf("/%d", n)
			if a, b := where(t.Context(), path), where(t.Context(), path); a != b {
				t.Errorf("%s went to %q and to %q", path, a, b)
			}
			ctx := client.WithPick(t.Context(), client.PickBy{Key: "one"})
			if a, b := where(ctx, path), where(ctx, "/other"); a != b {
				t.Errorf("of one key: %q and %q", a, b)
			}
		}
	})
}

// BenchmarkPick: picks from the cache of a watch, among 100 instances.
func BenchmarkPick(b *testing.B) {
	w, r := newWorld(), newRegistry()
	hosts := w.nodes(r, 1)
	for n := range 100 {
		i := lasting("web", fmt.Sprintf("i-%d", n))
		i.Tags, i.Ports = []string{"x"}, map[string]int{"admin": 81}
		r.put(i)
	}
	c, err := client.New(client.Config{Addrs: addrs(hosts), Transport: w})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	watch, err := c.Watch(b.Context(), "web")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := watch.Await(b.Context()); err != nil {
		b.Fatal(err)
	}
	for name, by := range map[string]client.PickBy{
		"any":           {},
		"by fields":     {Where: &muster.Query{Tags: []string{"x"}}},
		"by expression": {Where: &muster.Query{Filter: `"x" in tags`}},
		"named port":    {Port: "admin"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := watch.Pick(by); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("with outcome", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			choice, err := watch.Start(client.PickBy{})
			if err != nil {
				b.Fatal(err)
			}
			watch.Done(choice, balancer.Outcome{Latency: time.Millisecond})
		}
	})
}
