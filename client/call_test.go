package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
)

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  client.Config
		code muster.Code
	}{
		"no address":      {client.Config{}, muster.CodeConflictingField},
		"a path":          {client.Config{Addrs: []string{"http://a:1/x"}}, muster.CodeInvalidAddress},
		"another scheme":  {client.Config{Addrs: []string{"ftp://a:1"}}, muster.CodeInvalidAddress},
		"a password":      {client.Config{Addrs: []string{"http://u:p@a:1"}}, muster.CodeInvalidAddress},
		"a bad namespace": {client.Config{Addrs: []string{"a:1"}, Namespace: "-"}, muster.CodeInvalidName},
		"no patience":     {client.Config{Addrs: []string{"a:1"}, AttemptTimeout: time.Millisecond}, muster.CodeConflictingField},
		"a bad filter":    {client.Config{Addrs: []string{"a:1"}, Calls: client.Calls{By: client.PickBy{Where: &muster.Query{Filter: "prt == 1"}}}}, muster.CodeInvalidFilter},
		"a bad agent":     {client.Config{Addrs: []string{"a:1"}, UserAgent: "a\r\nb"}, muster.CodeConflictingField},
		"many attempts":   {client.Config{Addrs: []string{"a:1"}, Calls: client.Calls{Attempts: 11}}, muster.CodeConflictingField},
		"negative hedge":  {client.Config{Addrs: []string{"a:1"}, Calls: client.Calls{Hedge: -1}}, muster.CodeConflictingField},
		"negative":        {client.Config{Addrs: []string{"a:1"}, Timeout: -1}, muster.CodeConflictingField},
	} {
		if _, err := client.New(c.cfg); muster.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}

// TestFailover asks three nodes of which two misbehave, each in its way: the third
// answers, and those that failed are not asked again soon.
func TestFailover(t *testing.T) {
	for name, misbehave := range map[string]func(*host){
		"down":          func(h *host) { h.become(down) },
		"silent":        func(h *host) { h.become(silent) },
		"no leader":     func(h *host) { h.answer(muster.CodeNoLeader) },
		"catching up":   func(h *host) { h.answer(muster.CodeCatchingUp) },
		"shutting down": func(h *host) { h.answer(muster.CodeShuttingDown) },
		"disk full":     func(h *host) { h.answer(muster.CodeDiskFull) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := newWorld(), newRegistry()
				hosts := w.nodes(r, 3)
				r.put(muster.Instance{Service: "web", ID: "a", TTL: muster.NoTTL})
				misbehave(hosts[0])
				misbehave(hosts[1])
				c := newClient(t, w, hosts)
				began := time.Now()
				for range 50 {
					v, err := c.Service(t.Context(), "web")
					if err != nil || len(v.Instances) != 1 {
						t.Fatalf("got %v %v", v, err)
					}
				}
				if took := time.Since(began); took > 2*client.DefaultAttemptTimeout {
					t.Errorf("50 reads took %s: nodes that failed were asked again", took)
				}
				if n := hosts[0].requests() + hosts[1].requests(); n > 2 {
					t.Errorf("the nodes that failed were asked %d times", n)
				}
				// When the one that works goes too, and another is back, that is found.
				hosts[2].become(down)
				hosts[1].become(works)
				if _, err := c.Service(t.Context(), "web"); err != nil {
					t.Errorf("with another node back: %v", err)
				}
			})
		})
	}
}

// TestErrorsAreTheRegistrys: what a node says comes through whole, and is not asked
// of another node.
func TestErrorsAreTheRegistrys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 3)
		c := newClient(t, w, hosts)
		_, err := c.Service(t.Context(), "nobody")
		if !errors.Is(err, muster.CodeUnknownService) {
			t.Errorf("got %v, want unknown_service", err)
		}
		if n := hosts[0].requests() + hosts[1].requests() + hosts[2].requests(); n != 1 {
			t.Errorf("an answer was asked for %d times", n)
		}
	})
}

// TestNobodyAnswers ends with the context, and says whether a write may have
// happened.
func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(), newRegistry()
		hosts := w.nodes(r, 2)
		c := newClient(t, w, hosts)
		inst := &muster.Instance{Service: "web", ID: "a", Address: "10.0.0.1", Port: 80}

		hosts[0].become(down)
		hosts[1].become(down)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		_, err := c.PutInstance(ctx, inst)
		if !errors.Is(err, client.CodeUnreachable) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("refused everywhere: %v, want unreachable and why", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %s, longer than its context", took)
		}

		hosts[0].become(cut)
		hosts[1].become(cut)
		if _, err := c.CreateInstance(t.Context(), &muster.Instance{Service: "web", Address: "10.0.0.1", Port: 80}); !errors.Is(err, muster.CodeOutcomeUnknown) {
			t.Errorf("a broken POST: %v, want outcome_unknown", err)
		}
		if n := hosts[0].requests() + hosts[1].requests(); n != 1 {
			t.Errorf("a POST whose outcome is unknown was sent %d times", n)
		}
		hosts[1].answer(muster.CodeNoLeader)
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := c.PutInstance(ctx, inst); !errors.Is(err, muster.CodeOutcomeUnknown) {
			t.Errorf("broken on one node, no leader on the other: %v, want outcome_unknown", err)
		}
		hosts[1].become(works)
		if _, err := c.PutInstance(t.Context(), inst); err != nil {
			t.Errorf("a broken PUT was not repeated on the other node: %v", err)
		}
		if r.find("web", "a") == nil {
			t.Error("the PUT did not arrive")
		}

		hosts[0].become(silent)
		hosts[1].become(silent)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Service(ctx, "web"); !errors.Is(err, client.CodeUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a read of silent nodes: %v, want unreachable, deadline exceeded", err)
		}
	})
}

// TestRetryAfter: a registry that asks for time is given it.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		asked := []time.Time{}
		h := w.add("n1:7400", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, time.Now())
			if len(asked) < 3 {
				refuse(w, muster.Errorf(muster.CodeOverloaded, "too much").WithRetryAfter(2*time.Second))
				return
			}
			_, _ = w.Write([]byte(`{"version":"v1"}`))
		}))
		c := newClient(t, w, []*host{h})
		v, err := c.Version(t.Context())
		if err != nil || v.Version != "v1" || len(asked) != 3 {
			t.Fatalf("got %+v %v after %d requests", v, err, len(asked))
		}
		for n := 1; n < 3; n++ {
			if d := asked[n].Sub(asked[n-1]); d < 2*time.Second {
				t.Errorf("asked again after %s, want at least 2s", d)
			}
		}
		asked = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := c.Version(ctx); !errors.Is(err, muster.CodeOverloaded) || time.Since(began) > 0 {
			t.Errorf("with no time to wait: %v after %s, want overloaded at once", err, time.Since(began))
		}
	})
}

// TestBudget: while everything fails, retries stay a tenth of the traffic.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		h := w.add("n1:7400", nil)
		h.answer(muster.CodeNoLeader)
		c := newClient(t, w, []*host{h})
		const calls = 1000
		for range calls {
			if _, err := c.Version(t.Context()); !errors.Is(err, muster.CodeNoLeader) {
				t.Fatalf("got %v", err)
			}
		}
		if n := h.requests(); n > calls+calls/5 {
			t.Errorf("%d calls made %d requests", calls, n)
		}
	})
}

// TestNeverBackInTime: what a client has seen on one node is asked of the next.
func TestNeverBackInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ahead, behind := newWorld(), newRegistry(), newRegistry()
		first := w.add("n1:7400", ahead)
		second := w.add("n2:7400", behind)
		c := newClient(t, w, []*host{first, second})
		for n := range 5 {
			ahead.put(muster.Instance{Service: "web", ID: string(rune('a' + n)), TTL: muster.NoTTL})
		}
		behind.put(muster.Instance{Service: "web", ID: "a", TTL: muster.NoTTL})
		second.become(down)
		if v, err := c.Service(t.Context(), "web"); err != nil || len(v.Instances) != 5 {
			t.Fatalf("got %v %v", v, err)
		}
		second.become(works)
		first.become(down)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if v, err := c.Service(ctx, "web"); !errors.Is(err, muster.CodeBehind) {
			t.Errorf("a node that is behind answered %v %v", v, err)
		}
		// Another cluster has other indexes: there the client begins anew.
		behind.forget("c-2")
		behind.put(muster.Instance{Service: "web", ID: "z", TTL: muster.NoTTL})
		if v, err := c.Service(t.Context(), "web"); err != nil || v.Instances[0].ID != "z" {
			t.Errorf("of another cluster: %v %v", v, err)
		}
	})
}

func TestNotARegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		h := w.add("n1:7400", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/limits" {
				w.Header().Set("Location", "http://elsewhere/")
				w.WriteHeader(http.StatusFound)
				return
			}
			_, _ = w.Write([]byte("<html>hello</html>"))
		}))
		c := newClient(t, w, []*host{h})
		if _, err := c.Version(t.Context()); !errors.Is(err, muster.CodeInternal) {
			t.Errorf("a page: %v", err)
		}
		if _, err := c.Limits(t.Context()); !errors.Is(err, muster.CodeInternal) {
			t.Errorf("a redirect: %v", err)
		}
	})
}
