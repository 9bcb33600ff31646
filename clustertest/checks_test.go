package clustertest_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
	"github.com/muster-registry/muster/health"
)

// target is a real server whose health can be turned off.
type target struct {
	*httptest.Server
	sick atomic.Bool
	hits atomic.Int64
}

func newTarget(t *testing.T) *target {
	t.Helper()
	s := &target{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.hits.Add(1)
		if s.sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *target) addr() *net.TCPAddr { return s.Listener.Addr().(*net.TCPAddr) }

// checked is the body of a registration with one quick check.
func (s *target) checked(more string) string {
	return fmt.Sprintf(`{"address":"127.0.0.1","port":%d,"ttl":"none",%s"checks":[{"name":"live","type":"http","path":"/health","interval":"1s","timeout":"1s","fall":2}]}`,
		s.addr().Port, more)
}

func instanceOn(t *testing.T, m *clustertest.Member, path string) *muster.Instance {
	t.Helper()
	status, text, err := m.Do("GET", path, "")
	if err != nil || status != http.StatusOK {
		return &muster.Instance{}
	}
	i := new(muster.Instance)
	clustertest.MustDecode(t, text, i)
	return i
}

func waitStatus(t *testing.T, c *clustertest.Cluster, path string, want muster.Status) {
	t.Helper()
	for _, m := range c.Members {
		if m.Running() {
			c.Wait(fmt.Sprintf("%s on %s to be %s", path, m.Name, want), func() bool { return instanceOn(t, m, path).Status == want })
		}
	}
}

// causes are the causes of an instance's events, in order.
func causes(t *testing.T, m *clustertest.Member, service, id string) string {
	t.Helper()
	var answer muster.Events
	clustertest.MustDecode(t, m.MustDo("GET", "/v1/events?service="+service+"&instance="+id, "", 200), &answer)
	var all []string
	for _, e := range answer.Events {
		all = append(all, string(e.Cause))
	}
	return strings.Join(all, " ")
}

const web1 = "/v1/services/web/instances/web-1"

// TestChecks follows a real server that fails and recovers, on all nodes.
func TestChecks(t *testing.T) {
	c := clustertest.Start(t, 3)
	s := newTarget(t)
	m := c.Followers(c.Leader())[0]
	if text := m.MustDo("PUT", web1, s.checked(""), 201); !strings.Contains(text, `"status":"unknown"`) {
		t.Errorf("at first: %s", text)
	}
	waitStatus(t, c, web1, muster.StatusUp)
	s.sick.Store(true)
	waitStatus(t, c, web1, muster.StatusDown)
	i := instanceOn(t, m, web1)
	if ch := i.Checks[0]; ch.Status != muster.StatusDown || ch.Cause != muster.CheckHTTPStatus || !strings.HasPrefix(ch.Output, "503") || ch.Since.IsZero() ||
		i.Routable || i.StatusCause != muster.CauseCheckFailed {
		t.Errorf("failing: %+v", i)
	}
	if status, text, err := m.Do("GET", "/v1/services/web/pick", ""); err != nil || status != 503 || !strings.Contains(text, "no_instance") {
		t.Errorf("picking it: %d %s %v", status, text, err)
	}
	s.sick.Store(false)
	waitStatus(t, c, web1, muster.StatusUp)
	m.MustDo("GET", "/v1/services/web/pick?min_index="+fmt.Sprint(instanceOn(t, c.Leader(), web1).ModifyIndex), "", 200)
	if got := causes(t, m, "web", "web-1"); got != "registered check_passed check_failed check_passed" {
		t.Errorf("events: %s", got)
	}

	// What a GET answers can be sent back, and changes nothing; other checks begin anew.
	text := m.MustDo("GET", web1, "", 200)
	before := instanceOn(t, m, web1)
	if again := m.MustDo("PUT", web1, text, 200); !strings.Contains(again, `"status":"up"`) {
		t.Errorf("sent back: %s", again)
	}
	if after := instanceOn(t, m, web1); after.ModifyIndex != before.ModifyIndex {
		t.Errorf("sending an instance back changed it: %+v", after)
	}
	if text := m.MustDo("PUT", web1, strings.Replace(s.checked(""), "/health", "/other", 1), 200); !strings.Contains(text, `"status":"unknown"`) {
		t.Errorf("with another check: %s", text)
	}
	waitStatus(t, c, web1, muster.StatusUp)

	// Draining keeps it listed and probed, and out of picks.
	m.MustDo("PUT", web1+"/override", `{"status":"draining"}`, 200)
	waitStatus(t, c, web1, muster.StatusDraining)
	s.sick.Store(true)
	c.Wait("the check below the override to fail", func() bool { return instanceOn(t, m, web1).Checks[0].Status == muster.StatusDown })
	m.MustDo("DELETE", web1+"/override", "", 204)
	waitStatus(t, c, web1, muster.StatusDown)

	// A probe ends with its instance.
	m.MustDo("DELETE", web1, "", 204)
	var quiet int64
	last := time.Now()
	c.Wait("the probes to end", func() bool {
		if n := s.hits.Load(); n != quiet {
			quiet, last = n, time.Now()
		}
		return time.Since(last) > 2500*time.Millisecond
	})
	c.CheckEqualStates()
}

// TestDependency: an instance is up only while what it needs has a routable
// instance, and says so.
func TestDependency(t *testing.T) {
	c := clustertest.Start(t, 1)
	m := c.Members[0]
	m.MustDo("PUT", web1, `{"address":"10.0.0.1","port":80,"ttl":"none","checks":[{"type":"service","service":"db","interval":"1s","fall":1}]}`, 201)
	waitStatus(t, c, web1, muster.StatusDown)
	if ch := instanceOn(t, m, web1).Checks[0]; ch.Cause != muster.CheckDependency {
		t.Errorf("got %+v", ch)
	}
	m.MustDo("PUT", "/v1/services/db/instances/db-1", body, 201)
	waitStatus(t, c, web1, muster.StatusUp)
	if status, text, err := m.Do("PUT", web1, `{"address":"10.0.0.1","port":80,"ttl":"none","checks":[{"type":"service","service":"web"}]}`); err != nil || status != 400 || !strings.Contains(text, "invalid_check") {
		t.Errorf("a service that depends on itself: %d %s %v", status, text, err)
	}
}

// owners are the members that probe the first check of web-1, and the others.
func owners(c *clustertest.Cluster) (mine, rest []*clustertest.Member) {
	var ids []string
	for _, m := range c.Members {
		ids = append(ids, m.Node().ID())
	}
	who := health.Owners(ids, muster.InstanceKey{Namespace: "default", Service: "web", ID: "web-1"}, 0)
	for _, m := range c.Members {
		if id := m.Node().ID(); id == who[0] || id == who[1] {
			mine = append(mine, m)
		} else {
			rest = append(rest, m)
		}
	}
	return mine, rest
}

// TestCutProber: a node that is cut off from an instance evicts nobody, and the
// disagreement shows; when both are, it goes.
func TestCutProber(t *testing.T) {
	c := clustertest.Start(t, 3)
	s := newTarget(t)
	m := c.Members[0]
	m.MustDo("PUT", web1, s.checked(""), 201)
	waitStatus(t, c, web1, muster.StatusUp)
	mine, _ := owners(c)
	mine[0].CheckFaults.Cut(s.addr().String())
	c.Wait("the disagreement to show", func() bool {
		i := instanceOn(t, m, web1)
		if i.Status != muster.StatusUp {
			t.Fatalf("one node's opinion made it %s", i.Status)
		}
		return i.Checks[0].Contested
	})
	mine[0].CheckFaults.Heal(s.addr().String())
	c.Wait("the disagreement to end", func() bool { return !instanceOn(t, m, web1).Checks[0].Contested })
	mine[0].CheckFaults.Cut(s.addr().String())
	mine[1].CheckFaults.Cut(s.addr().String())
	waitStatus(t, c, web1, muster.StatusDown)
	if got := causes(t, m, "web", "web-1"); got != "registered check_passed check_contested check_contested check_failed" {
		t.Errorf("events: %s", got)
	}
}

// TestNodesDieUnderChecks: neither a prober's death nor the leader's moves
// anything, and what fails afterwards is found out.
func TestNodesDieUnderChecks(t *testing.T) {
	c := clustertest.Start(t, 3)
	s := newTarget(t)
	var paths []string
	for n := range 9 {
		paths = append(paths, fmt.Sprintf("/v1/services/web/instances/web-%d", n))
		c.Members[0].MustDo("PUT", paths[n], s.checked(""), 201)
	}
	for _, p := range paths {
		waitStatus(t, c, p, muster.StatusUp)
	}
	steady := func(when string) {
		t.Helper()
		m := c.Leader()
		for n := range paths {
			if got := causes(t, m, "web", fmt.Sprintf("web-%d", n)); got != "registered check_passed" {
				t.Errorf("%s: web-%d: %s", when, n, got)
			}
		}
	}
	// probed waits until probes of the nodes that are left have come often enough
	// for every check to have been made several times.
	probed := func() {
		t.Helper()
		from := s.hits.Load()
		c.Wait("probes", func() bool { return s.hits.Load() > from+60 })
	}
	follower := c.Followers(c.Leader())[0]
	follower.Kill()
	probed()
	steady("a prober died")
	follower.Start()
	follower.WaitReady("?require=leader")
	probed()
	steady("it came back")
	leader := c.Leader()
	leader.Kill()
	c.Leader()
	probed()
	steady("the leader died")
	s.sick.Store(true)
	for _, p := range paths {
		waitStatus(t, c, p, muster.StatusDown)
	}
	leader.Start()
	leader.WaitReady("?require=leader")
	s.sick.Store(false)
	for _, p := range paths {
		waitStatus(t, c, p, muster.StatusUp)
	}
	c.CheckEqualStates()
}

// TestCheckedIntoTheRegistry: no check reaches the registry's own ports.
func TestCheckedIntoTheRegistry(t *testing.T) {
	c := clustertest.Start(t, 3)
	m := c.Members[0]
	ports := map[string]bool{}
	for _, address := range m.Node().Cluster().Addresses() {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		ports[port] = true
	}
	if len(ports) != 9 {
		t.Errorf("three nodes have three ports each, not %v", ports)
	}
	path := func(port string) string { return "/v1/services/self/instances/s-" + port }
	for port := range ports {
		m.MustDo("PUT", path(port), `{"address":"127.0.0.1","port":`+port+`,"ttl":"none","checks":[{"type":"tcp","interval":"1s","fall":1}]}`, 201)
	}
	for port := range ports {
		waitStatus(t, c, path(port), muster.StatusDown)
		if ch := instanceOn(t, m, path(port)).Checks[0]; ch.Cause != muster.CheckForbidden {
			t.Errorf("port %s: got %+v", port, ch)
		}
	}
}

// TestConfirmedDead: an instance that the governor holds goes once its checks have
// failed, without waiting for the governor, and the others stay.
func TestConfirmedDead(t *testing.T) {
	c := clustertest.Start(t, 3)
	s, healthy := newTarget(t), newTarget(t)
	m := c.Members[0]
	dead := "/v1/services/web/instances/dead"
	lease := func(s *target) string { return strings.Replace(s.checked(""), `"ttl":"none"`, `"ttl":"3s"`, 1) }
	m.MustDo("PUT", dead, lease(s), 201)
	for n := range 20 {
		m.MustDo("PUT", fmt.Sprintf("/v1/services/web/instances/live-%d", n), lease(healthy), 201)
	}
	held := func() (n int) {
		var v muster.View
		clustertest.MustDecode(t, m.MustDo("GET", "/v1/services/web", "", 200), &v)
		for _, i := range v.Instances {
			if i.Suspect && i.ID != "dead" {
				n++
			}
		}
		return n
	}
	waitStatus(t, c, dead, muster.StatusUp)
	c.Wait("the governor to hold some", func() bool {
		m.MustDo("PUT", dead+"/heartbeat", "", 200)
		return held() > 0
	})
	c.Wait("it to hold the one that beats no more", func() bool { return instanceOn(t, m, dead).Suspect })
	s.sick.Store(true)
	c.Wait("the dead one to go", func() bool {
		status, _, err := m.Do("GET", dead, "")
		return err == nil && status == 404
	})
	if held() == 0 {
		t.Error("none is held any more")
	}
	if got := causes(t, m, "web", "dead"); got != "registered check_passed suspected check_failed released" {
		t.Errorf("events: %s", got)
	}
}
