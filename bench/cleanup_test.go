package bench

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/muster-registry/muster"
)

// removals is a node that answers DELETE by the rule, and notes what it has removed.
type removals struct {
	mu   sync.Mutex
	seen map[string]int // how often each id was asked for; guarded by mu
	gone map[string]bool
	rule func(id string, times int) int
}

func (r *removals) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	id := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[id]++
	status := r.rule(id, r.seen[id])
	if status == http.StatusNoContent {
		r.gone[id] = true
	}
	w.WriteHeader(status)
}

// newWorld returns the world of a running cluster whose nodes follow these rules.
func newWorld(t *testing.T, rules ...func(id string, times int) int) (*world, []*removals) {
	t.Helper()
	transport := newTransport(nil)
	t.Cleanup(transport.CloseIdleConnections)
	w := &world{cluster: &Cluster{}, client: &http.Client{Transport: transport}, fixtures: map[string]bool{"leased": true}, namespace: "bench-1"}
	var nodes []*removals
	for _, rule := range rules {
		r := &removals{seen: map[string]int{}, gone: map[string]bool{}, rule: rule}
		srv := httptest.NewServer(r)
		t.Cleanup(srv.Close)
		nodes = append(nodes, r)
		w.cluster.Nodes = append(w.cluster.Nodes, &Node{URL: srv.URL})
	}
	return w, nodes
}

// TestCleanUp: removals that a node does not do are asked of another, one that nobody
// may do keeps no other from it, and what was not known is asked for once more.
func TestCleanUp(t *testing.T) {
	w, nodes := newWorld(t,
		func(string, int) int { return http.StatusServiceUnavailable },
		func(id string, times int) int {
			switch {
			case id == "i-7":
				return http.StatusForbidden
			case id == "i-8" && times == 1, id == "i-9":
				return http.StatusNotFound
			case times == 1:
				return http.StatusTooManyRequests
			}
			return http.StatusNoContent
		})
	w.remember(keysOf(w.namespace, "x", 100))
	err := w.cleanUp(t.Context())
	if err == nil || !strings.Contains(err.Error(), "1 of the benchmark's 100 instances may be left in namespace bench-1") || !strings.Contains(err.Error(), "403") {
		t.Errorf("the error is %v", err)
	}
	if len(w.keys) != 1 || !strings.Contains(w.keys[0], "/i-7?") || len(w.fixtures) > 0 {
		t.Errorf("left are %v, with fixtures %v", w.keys, w.fixtures)
	}
	if got := nodes[1]; len(got.gone) != 98 || !got.gone["i-8"] || got.seen["i-9"] != 2 || got.seen["i-7"] != 1 {
		t.Errorf("%d were removed: %v", len(got.gone), got.seen)
	}
}

// TestCleanUpInterrupted: a run that was told to stop cleans up as well.
func TestCleanUpInterrupted(t *testing.T) {
	w, nodes := newWorld(t, func(string, int) int { return http.StatusNoContent })
	w.remember(keysOf(w.namespace, "x", 100))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := w.cleanUp(ctx); err != nil || len(w.keys) > 0 || len(nodes[0].gone) != 100 {
		t.Errorf("%v; %d were removed", err, len(nodes[0].gone))
	}
}

// TestRemoveEnds: when the time is up, the last reason is told.
func TestRemoveEnds(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	w, _ := newWorld(t, func(string, int) int { stop(); return http.StatusServiceUnavailable })
	_, err := w.remove(ctx, new(int), w.path("x", "i-0", ""))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

// TestRegisteredKeys: what register makes in a running cluster is bounded, and all of
// it is known.
func TestRegisteredKeys(t *testing.T) {
	w := &world{cluster: &Cluster{}}
	if got := w.mostRegistrations(); got != registrationsInUse {
		t.Errorf("%d registrations in a cluster in use", got)
	}
	w.cfg.Only = regexp.MustCompile("^register$|read")
	if got := w.mostRegistrations(); got != registrationsNamed {
		t.Errorf("%d registrations where they are asked for", got)
	}
	w.cluster.owned = true
	if got := w.mostRegistrations(); got != 0 {
		t.Errorf("%d registrations in a cluster that was started", got)
	}
	got := registeredKeys(250)
	for n, want := range map[int]muster.InstanceKey{0: {Service: "registered-0", ID: "i-1"}, 98: {Service: "registered-0", ID: "i-99"}, 249: {Service: "registered-2", ID: "i-50"}} {
		if got[n] != want {
			t.Errorf("the key of registration %d is %v", n+1, got[n])
		}
	}
}

// TestNames: a scenario is asked for only by the whole of its name.
func TestNames(t *testing.T) {
	for only, want := range map[string]bool{
		"expiry": true, "^expiry$": true, "^(read|expiry)$": true, "read|expiry": true,
		".": false, "expir": false, "exp.*": false, "read": false,
	} {
		if got := (Config{Only: regexp.MustCompile(only)}).names("expiry"); got != want {
			t.Errorf("--run %s names expiry: %v", only, got)
		}
	}
	if (Config{}).names("expiry") {
		t.Error("no --run names expiry")
	}
	w := &world{cfg: Config{Addrs: []string{"http://127.0.0.1:1"}, Only: regexp.MustCompile(".")}}
	for _, s := range scenarios() {
		if s.files > 0 {
			continue // a matter of this machine
		}
		risky := s.name == "expiry" || s.name == "footprint" || s.name == "failover"
		if why := w.unfit(s); risky != (why != "") {
			t.Errorf("%s in a cluster in use: %q", s.name, why)
		}
	}
}

// TestSilentIn: what runs out in a running cluster leaves most of what the governor
// bears (10 leases, or 15 % of them) to the others.
func TestSilentIn(t *testing.T) {
	for live, want := range map[int]int{0: 5, 100: 5, 1000: 50, 9000: 450, 1_000_000: 500} {
		if got := silentIn(live, 500); got != want {
			t.Errorf("%d of %d leases, want %d", got, live, want)
		}
	}
}
