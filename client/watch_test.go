package client_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
)

func lasting(service, id string) muster.Instance {
	return muster.Instance{Service: service, ID: id, TTL: muster.NoTTL}
}

func mustWatch(t *testing.T, c *client.Client, service string) *client.Watch {
	t.Helper()
	w, err := c.Watch(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// ids are the instances of a view, in short.
func ids(v *muster.View) string {
	if v == nil {
		return "nothing"
	}
	var got []string
	for _, i := range v.Instances {
		got = append(got, i.ID)
	}
	return strings.Join(got, " ")
}

func wantIDs(t *testing.T, w *client.Watch, want string) {
	t.Helper()
	synctest.Wait()
	if got := ids(w.View()); got != want {
		t.Errorf("view: got %q, want %q (%+v)", got, want, w.Status())
	}
}

// TestWatch follows services through changes, on one stream.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 3))
		r.put(lasting("web", "a"))
		web := mustWatch(t, c, "Web")
		if v, err := web.Await(t.Context()); err != nil || ids(v) != "a" || v.Service != "web" {
			t.Fatalf("got %v %v", v, err)
		}
		// A service that is watched later comes in, and misses nothing.
		r.put(lasting("api", "x"))
		api, none := mustWatch(t, c, "api"), mustWatch(t, c, "none")
		time.Sleep(time.Second)
		wantIDs(t, api, "x")
		wantIDs(t, none, "")
		before := web.View()
		r.put(lasting("web", "c"))
		r.put(lasting("web", "b"))
		r.put(lasting("none", "n"))
		r.put(lasting("unwatched", "u"))
		wantIDs(t, web, "a b c")
		wantIDs(t, none, "n")
		if ids(before) != "a" || before.Instances[0] != web.View().Instances[0] {
			t.Error("a view was changed, or shares nothing with the one before")
		}
		heavy := lasting("web", "b")
		heavy.Weight = 7
		r.put(heavy)
		r.drop("web", "a", muster.EventDeregistered, muster.EmptyDeregistered)
		wantIDs(t, web, "b c")
		if i := web.View().Find("b"); i.Weight != 7 {
			t.Errorf("b is %+v", i)
		}
		if st := web.Status(); !st.Connected || st.Old || st.Held != "" || st.Err != nil {
			t.Errorf("status %+v", st)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		streams := 0
		for _, s := range r.seen {
			if strings.HasPrefix(s, "GET /v1/watch") {
				streams++
			}
		}
		if streams != 2 {
			t.Errorf("%d streams were opened, want one and one again: %q", streams, r.seen)
		}
	})
}

// TestWatchSettings: a change of settings is a change of the view.
func TestWatchSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		r.put(lasting("web", "a"))
		web := mustWatch(t, c, "web")
		wantIDs(t, web, "a")
		s := muster.DefaultSettings()
		s.Strategy = muster.StrategyRandom
		for _, want := range []*muster.Settings{&s, nil} {
			r.configure("web", want)
			synctest.Wait()
			v := web.View()
			if (v.Settings == nil) != (want == nil) || want != nil && *v.Settings != *want || ids(v) != "a" {
				t.Errorf("settings %+v, want %+v", v.Settings, want)
			}
		}
	})
}

// TestWatchNext: a reader is told of every view it has not seen, and of the end.
func TestWatchNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		r.put(lasting("web", "a"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		web, err := c.Watch(ctx, "web")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for v := range web.Views(t.Context()) {
				got = append(got, ids(v))
			}
		}()
		synctest.Wait()
		for _, id := range []string{"b", "c"} {
			r.put(lasting("web", id))
			synctest.Wait()
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := web.Next(short, web.View()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nothing new: %v", err)
		}
		cancel()
		<-done
		if want := []string{"a", "a b", "a b c"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if _, err := web.Next(t.Context(), web.View()); !errors.Is(err, muster.CodeShuttingDown) {
			t.Errorf("after the end: %v", err)
		}
		if ids(web.View()) != "a b c" {
			t.Error("the last view is gone")
		}
	})
}

// TestWatchFailover: nodes fail under a stream, each in its way, and every change
// comes through, once.
func TestWatchFailover(t *testing.T) {
	for name, fail := range map[string]func(h *host){
		"down":   func(h *host) { h.become(down) },
		"silent": func(h *host) { h.become(down); h.become(silent) },
		"coded":  func(h *host) { h.become(down); h.answer(muster.CodeCatchingUp) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := newWorld(), newRegistry()
				hosts := w.nodes(r, 3)
				c := newClient(t, w, hosts)
				r.put(lasting("web", "i-0"))
				web := mustWatch(t, c, "web")
				last := 0
				watching := make(chan struct{})
				go func() {
					defer close(watching)
					for v := range web.Views(t.Context()) {
						if len(v.Instances) < last {
							t.Errorf("from %d instances to %d", last, len(v.Instances))
						}
						if last = len(v.Instances); last == 30 {
							return
						}
					}
				}()
				for n := 1; n < 30; n++ {
					bad := hosts[n%3]
					fail(bad)
					time.Sleep(time.Second)
					r.put(lasting("web", fmt.Sprintf("i-%d", n)))
					time.Sleep(10 * time.Second)
					bad.become(works)
				}
				time.Sleep(time.Minute)
				<-watching
				r.mu.Lock()
				defer r.mu.Unlock()
				begun := 0
				for _, s := range r.seen {
					if strings.HasPrefix(s, "GET /v1/watch") && !strings.Contains(s, "from=") {
						begun++
					}
				}
				if begun != 1 {
					t.Errorf("%d streams began anew; the others should go on from where they were", begun)
				}
			})
		})
	}
}

// TestWatchShowsNoEmptiness that nobody wanted.
func TestWatchShowsNoEmptiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 2)
		c := newClient(t, w, hosts)
		r.put(lasting("web", "a"))
		web := mustWatch(t, c, "web")
		wantIDs(t, web, "a")

		for _, h := range hosts {
			h.become(down)
		}
		time.Sleep(time.Hour)
		wantIDs(t, web, "a")
		if st := web.Status(); st.Connected || st.Err == nil {
			t.Errorf("with all nodes down: %+v", st)
		}
		for _, h := range hosts {
			h.answer(muster.CodeCatchingUp)
		}
		time.Sleep(time.Minute)
		wantIDs(t, web, "a")

		// The registry comes back and knows nothing.
		r.forget("c-2")
		for _, h := range hosts {
			h.become(works)
		}
		time.Sleep(time.Minute)
		wantIDs(t, web, "a")
		if st := web.Status(); st.Held != client.HeldUnknown || !st.Connected {
			t.Errorf("of a registry that knows nothing: %+v", st)
		}
		r.put(lasting("web", "b"))
		wantIDs(t, web, "b")
		if st := web.Status(); st.Held != "" {
			t.Errorf("once it lists one: %+v", st)
		}

		// Leases that ran out.
		r.drop("web", "b", muster.EventExpired, muster.EmptyExpired)
		wantIDs(t, web, "b")
		time.Sleep(client.DefaultHoldExpired - time.Second)
		wantIDs(t, web, "b")
		if st := web.Status(); st.Held != client.HeldExpired {
			t.Errorf("expired: %+v", st)
		}
		time.Sleep(2 * time.Second)
		wantIDs(t, web, "")
		if v := web.View(); v.EmptyReason != muster.EmptyExpired {
			t.Errorf("empty because %q", v.EmptyReason)
		}
		r.put(lasting("web", "c"))
		r.drop("web", "c", muster.EventExpired, muster.EmptyExpired)
		r.put(lasting("web", "d"))
		time.Sleep(time.Hour)
		wantIDs(t, web, "d") // the hold of c ends nothing

		// What is deregistered goes at once.
		r.drop("web", "d", muster.EventDeregistered, muster.EmptyDeregistered)
		wantIDs(t, web, "")
	})
}

// TestWatchHoldsNothing where that is asked for.
func TestWatchHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1), func(cfg *client.Config) { cfg.HoldExpired = -1 })
		r.put(lasting("web", "a"))
		web := mustWatch(t, c, "web")
		wantIDs(t, web, "a")
		r.drop("web", "a", muster.EventExpired, muster.EmptyExpired)
		wantIDs(t, web, "")
	})
}

// TestWatchPolls while no stream is given, and takes a stream again.
func TestWatchPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 3)
		r.noWatch = true
		c := newClient(t, w, hosts)
		r.put(lasting("web", "a"))
		web, api := mustWatch(t, c, "web"), mustWatch(t, c, "api")
		time.Sleep(5 * time.Second)
		wantIDs(t, web, "a")
		wantIDs(t, api, "")
		r.put(lasting("web", "b"))
		r.put(lasting("api", "x"))
		wantIDs(t, web, "a b")
		wantIDs(t, api, "x")
		if !web.Status().Connected {
			t.Errorf("status %+v", web.Status())
		}
		for _, h := range hosts[:2] {
			h.become(silent)
		}
		time.Sleep(time.Minute) // a silent node is found after its poll
		r.put(lasting("web", "c"))
		time.Sleep(30 * time.Second)
		wantIDs(t, web, "a b c")
		r.mu.Lock()
		r.noWatch = false
		r.mu.Unlock()
		time.Sleep(2 * time.Minute)
		r.put(lasting("web", "d"))
		r.drop("api", "x", muster.EventDeregistered, muster.EmptyDeregistered)
		wantIDs(t, web, "a b c d")
		wantIDs(t, api, "")
		if last := r.seen[len(r.seen)-1]; !strings.HasPrefix(last, "GET /v1/watch") {
			t.Errorf("the last request was %s, want a stream", last)
		}
	})
}

// TestWatchMovesOffAStaleNode: a node that is cut off from its leader says so.
func TestWatchMovesOffAStaleNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, fresh, behind := newWorld(), newRegistry(), newRegistry()
		one := w.add("n1:7400", behind)
		two := w.add("n2:7400", fresh)
		two.become(down)
		c := newClient(t, w, []*host{one, two})
		behind.put(lasting("web", "a"))
		fresh.put(lasting("web", "a"))
		web := mustWatch(t, c, "web")
		time.Sleep(time.Second)
		wantIDs(t, web, "a")
		behind.mu.Lock()
		behind.stale = 5000
		behind.wake()
		behind.mu.Unlock()
		fresh.put(lasting("web", "b"))
		time.Sleep(time.Minute)
		wantIDs(t, web, "a") // there is no other
		if st := web.Status(); st.Connected {
			t.Errorf("status %+v", st)
		}
		two.become(works)
		time.Sleep(time.Minute)
		wantIDs(t, web, "a b")
		if st := web.Status(); !st.Connected || st.Stale != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestWatchSnapshot: a process that starts while the registry is away goes on with
// what the one before it knew.
func TestWatchSnapshot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	keep := func(cfg *client.Config) { cfg.SnapshotDir = dir }
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 2)
		c := newClient(t, w, hosts, keep)
		r.put(lasting("web", "a"))
		web := mustWatch(t, c, "web")
		wantIDs(t, web, "a")
		r.put(lasting("web", "b"))
		wantIDs(t, web, "a b")
		c.Close()
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 1 {
			t.Fatalf("files %v %v", files, err)
		}
		if info, err := files[0].Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v (%v)", files[0].Name(), info.Mode(), err)
		}
		part := filepath.Join(dir, files[0].Name()+".1.part") // of a crash, long before
		if err := errors.Join(os.WriteFile(part, nil, 0o600), os.Chtimes(part, time.Time{}, time.Now().Add(-2*time.Hour))); err != nil {
			t.Fatal(err)
		}

		for _, h := range hosts {
			h.become(down)
		}
		c = newClient(t, w, hosts, keep)
		web, other := mustWatch(t, c, "web"), mustWatch(t, c, "other")
		v, err := web.Await(t.Context())
		if err != nil || ids(v) != "a b" || !web.Status().Old {
			t.Fatalf("from disk: %v %v %+v", ids(v), err, web.Status())
		}
		if other.View() != nil {
			t.Error("a view out of nowhere")
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := other.Await(short); !errors.Is(err, client.CodeUnreachable) {
			t.Errorf("with nothing on disk: %v", err)
		}
		r.put(lasting("web", "c"))
		for _, h := range hosts {
			h.become(works)
		}
		time.Sleep(30 * time.Second)
		if _, err := os.Stat(part); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what a crash left is still there: %v", err)
		}
		wantIDs(t, web, "a b c")
		if st := web.Status(); st.Old || !st.Connected {
			t.Errorf("status %+v", st)
		}
		c.Close()

		// A file that is broken, or another service's, is as none.
		path := filepath.Join(dir, files[0].Name())
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			h.become(down)
		}
		for _, bad := range []string{"", "{", string(good[:len(good)/2]), `{"format":2}`, strings.Replace(string(good), `"service":"web"`, `"service":"bad"`, 1), `{"format":1,"view":{"namespace":"default","service":"web","instances":[null]}}`} {
			if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			c := newClient(t, w, hosts, keep)
			web := mustWatch(t, c, "web")
			time.Sleep(10 * time.Second)
			wantIDs(t, web, "nothing")
			c.Close()
		}
	})
}

// TestWatchJunk: what is no stream of a registry is no view, whatever it holds.
func TestWatchJunk(t *testing.T) {
	for name, lines := range map[string]string{
		"no json":           "hello\n",
		"a page":            "<html>\n</html>\n",
		"cut off":           `{"type":"snapshot","data":{"namespace":"default"`,
		"no view":           `{"type":"snapshot","data":[]}` + "\n",
		"null view":         `{"type":"snapshot","data":null}` + "\n" + `{"type":"synced","id":1}` + "\n",
		"null instances":    `{"type":"snapshot","data":{"namespace":"default","service":"web","index":99,"instances":[null]}}` + "\n",
		"out of order":      `{"type":"snapshot","data":{"namespace":"default","service":"web","index":99,"instances":[{"id":"b"},{"id":"a"}]}}` + "\n",
		"another namespace": `{"type":"snapshot","data":{"namespace":"x","service":"web","index":99,"instances":[{"id":"b"}]}}` + "\n",
		"null events":       `{"type":"change","id":99,"data":{"index":99,"events":[null]}}` + "\n",
		"no age":            `{"type":"stale","data":{"stale_ms":"x"}}` + "\n",
		"a newer message":   `{"type":"what","id":1,"data":{"x":1}}` + "\n",
		"goodbye":           `{"type":"goodbye"}` + "\n",
		"nothing":           "",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := newWorld(), newRegistry()
				bad := w.add("n1:7400", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					if req.URL.Path != "/v1/watch" {
						r.ServeHTTP(w, req)
						return
					}
					w.Header().Set("Content-Type", "application/x-ndjson")
					_, _ = w.Write([]byte(lines))
				}))
				good := w.add("n2:7400", r)
				good.become(down) // until the bad one was asked
				c := newClient(t, w, []*host{bad, good})
				r.put(lasting("web", "a"))
				web := mustWatch(t, c, "web")
				time.Sleep(time.Second)
				good.become(works)
				time.Sleep(2 * time.Minute)
				wantIDs(t, web, "a")
				if _, err := web.Pick(client.PickBy{}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestWatchRefuses what it would not do.
func TestWatchRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		if _, err := c.Watch(t.Context(), "-"); !errors.Is(err, muster.CodeInvalidName) {
			t.Errorf("a bad name: %v", err)
		}
		if _, err := c.Watch(t.Context(), "web", client.In("-")); !errors.Is(err, muster.CodeInvalidName) {
			t.Errorf("a bad namespace: %v", err)
		}
		if _, err := c.Watch(t.Context(), "web", client.Linearizable()); !errors.Is(err, muster.CodeConflictingField) {
			t.Errorf("an option that a watch has not: %v", err)
		}
		c.Close()
		if _, err := c.Watch(t.Context(), "web"); !errors.Is(err, muster.CodeShuttingDown) {
			t.Errorf("of a closed client: %v", err)
		}
	})
}

// TestWatchComesAndGoes: the last watch of a namespace ends, slowly, while the next
// begins, and none after it is left without its view.
func TestWatchComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, []*host{w.add("n1:7400", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			r.ServeHTTP(w, req)
			if req.URL.Path == "/v1/watch" {
				time.Sleep(50 * time.Millisecond)
			}
		}))})
		r.put(lasting("web", "a"))
		r.put(lasting("api", "x"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		first, err := c.Watch(ctx, "web")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := first.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		for _, name := range []string{"api", "web", "none"} {
			next := mustWatch(t, c, name)
			short, stop := context.WithTimeout(t.Context(), 5*time.Second)
			if _, err := next.Await(short); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			stop()
			time.Sleep(time.Second)
		}
	})
}

// TestWatchManyServices: names that do not fit a URL are watched all the same.
func TestWatchManyServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		c := newClient(t, w, w.nodes(r, 1))
		var watches []*client.Watch
		for n := range 200 {
			name := fmt.Sprintf("service-%03d-%s", n, strings.Repeat("x", 60))
			if n%2 == 0 {
				r.put(lasting(name, "a"))
			}
			watches = append(watches, mustWatch(t, c, name))
		}
		time.Sleep(10 * time.Second)
		for n, web := range watches {
			wantIDs(t, web, []string{"a", ""}[n%2])
		}
		r.put(lasting(watches[1].View().Service, "b"))
		wantIDs(t, watches[1], "b")
	})
}
