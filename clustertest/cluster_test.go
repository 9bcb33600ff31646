package clustertest_test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
)

const body = `{"address":"10.0.0.5","port":8080,"ttl":"none"}`

// TestRegisterAnywhereReadAnywhere is the promise of the first page.
func TestRegisterAnywhereReadAnywhere(t *testing.T) {
	c := clustertest.Start(t, 3)
	leader := c.Leader()
	others := c.Followers(leader)

	resp, text, err := others[0].Request("PUT", "/v1/services/web/instances/web-1", body, nil)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("registering on a follower: %v %v %s", err, resp, text)
	}
	index := resp.Header.Get("Muster-Index")
	for _, m := range c.Members {
		text := m.MustDo("GET", "/v1/services/web?min_index="+index, "", 200)
		var v muster.View
		clustertest.MustDecode(t, text, &v)
		if len(v.Instances) != 1 || strconv.FormatUint(v.Index, 10) != index {
			t.Errorf("%s: got %s", m.Name, text)
		}
	}

	leader.Kill()
	c.Leader()
	resp, text, err = others[1].Request("PUT", "/v1/services/web/instances/web-2", body, nil)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("registering after the leader's death: %v %s", err, text)
	}
	text = others[0].MustDo("GET", "/v1/services/web?consistency=linearizable", "", 200)
	if !strings.Contains(text, "web-1") || !strings.Contains(text, "web-2") {
		t.Errorf("got %s", text)
	}
	leader.Start()
	leader.WaitReady("?require=leader")
	c.CheckEqualStates()
}

// TestMinority cuts the leader off: it goes on answering local reads, says how
// old they are, and refuses what needs a majority; the majority goes on.
func TestMinority(t *testing.T) {
	c := clustertest.Start(t, 3)
	cut := c.Leader()
	cut.MustDo("PUT", "/v1/services/web/instances/web-1", body, 201)
	rest := c.Followers(cut)
	c.Isolate(cut)

	start := time.Now()
	resp, text, err := cut.Request("PUT", "/v1/services/web/instances/web-2", body, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Whether the leader had noticed decides between "not applied" and "unknown".
	if resp.StatusCode != 503 && resp.StatusCode != 504 {
		t.Errorf("a write on the cut leader: got %d %s", resp.StatusCode, text)
	}
	status, text, err := cut.Do("PUT", "/v1/services/web/instances/web-3", body)
	if err != nil || status != 503 || !strings.Contains(text, `"no_leader"`) {
		t.Errorf("a later write on the cut leader: got %d %s %v, want 503 no_leader", status, text, err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("the refusals took %s", d)
	}
	status, text, err = cut.Do("GET", "/v1/services/web?consistency=linearizable&timeout=1s", "")
	if err != nil || status != 503 {
		t.Errorf("a linearizable read on the cut leader: got %d %s %v", status, text, err)
	}

	c.Wait("the majority to write", func() bool {
		status, _, err := rest[0].Do("PUT", "/v1/services/web/instances/web-4", body)
		return err == nil && status < 300
	})

	c.Wait("the age of the cut node's answers to show", func() bool {
		resp, text, err := cut.Request("GET", "/v1/services/web", "", nil)
		if err != nil || resp.StatusCode != 200 || !strings.Contains(text, "web-1") || strings.Contains(text, "web-4") {
			t.Fatalf("a local read on the cut node: %v %s", err, text)
		}
		stale, err := strconv.Atoi(resp.Header.Get("Muster-Stale-Ms"))
		if err != nil {
			t.Fatalf("Muster-Stale-Ms: %v", err)
		}
		return stale > 1500
	})
	status, text, err = cut.Do("GET", "/v1/services/web?max_stale=1s", "")
	if err != nil || status != 503 || !strings.Contains(text, "too_stale") {
		t.Errorf("max_stale on the cut node: got %d %s %v", status, text, err)
	}

	c.Heal()
	c.Wait("the cut node to catch up", func() bool {
		status, text, err := cut.Do("GET", "/v1/services/web", "")
		return err == nil && status == 200 && strings.Contains(text, "web-4")
	})
	c.CheckEqualStates()
}

// TestCatchingUp: a node without a leader's word shows nothing, whether it is new
// or was restarted; once it has had it, it goes on without a leader.
func TestCatchingUp(t *testing.T) {
	c := clustertest.Start(t, 3)
	c.Members[0].MustDo("PUT", "/v1/services/web/instances/web-1", body, 201)
	for _, m := range c.Members {
		if err := m.Stop(); err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
	}
	lone := c.Members[2]
	lone.Start()
	c.Wait("the lone node to listen", func() bool { s, _, err := lone.Do("GET", "/livez", ""); return err == nil && s == 200 })
	for _, path := range []string{"/v1/services/web", "/v1/services", "/v1/services/web/instances/web-1", "/v1/events"} {
		status, text, err := lone.Do("GET", path, "")
		if err != nil || status != 503 || !strings.Contains(text, `"catching_up"`) {
			t.Errorf("%s on a lone restarted node: got %d %s %v, want 503 catching_up", path, status, text, err)
		}
	}
	if status, _, _ := lone.Do("GET", "/readyz", ""); status != 503 {
		t.Errorf("/readyz: got %d, want 503", status)
	}
	c.Members[0].Start()
	c.Members[1].Start()
	c.WaitReady()
	for _, m := range c.Members {
		if text := m.MustDo("GET", "/v1/services/web", "", 200); !strings.Contains(text, "web-1") {
			t.Errorf("%s: got %s", m.Name, text)
		}
	}
	// Now without a leader: reads go on.
	c.Members[0].Kill()
	c.Members[1].Kill()
	if text := lone.MustDo("GET", "/v1/services/web", "", 200); !strings.Contains(text, "web-1") {
		t.Errorf("got %s", text)
	}
	lone.MustDo("GET", "/readyz", "", 200)
}

// TestWipedNodeIsANewMember empties a follower's disk: it comes back under a new
// id, takes its old self's place, and has everything.
func TestWipedNodeIsANewMember(t *testing.T) {
	c := clustertest.Start(t, 3)
	leader := c.Leader()
	leader.MustDo("PUT", "/v1/services/web/instances/web-1", body, 201)
	wiped := c.Followers(leader)[0]
	oldID := wiped.Node().ID()
	wiped.Kill()
	if err := os.RemoveAll(wiped.Dir()); err != nil {
		t.Fatal(err)
	}
	wiped.Start()
	if wiped.Node().ID() == oldID {
		t.Fatal("an emptied disk kept its identity")
	}
	wiped.WaitReady("?require=leader")
	c.Wait("the old id to be replaced and the new one to vote", func() bool {
		var cl muster.Cluster
		clustertest.MustDecode(t, leader.MustDo("GET", "/v1/cluster", "", 200), &cl)
		voters := 0
		for _, m := range cl.Members {
			if m.ID == oldID {
				return false
			}
			if m.State != muster.MemberLearner {
				voters++
			}
		}
		return voters == 3
	})
	if text := wiped.MustDo("GET", "/v1/services/web", "", 200); !strings.Contains(text, "web-1") {
		t.Errorf("got %s", text)
	}
	c.CheckEqualStates()
}

// TestGracefulStopHandsOver: stopping the leader leaves no second without one
// that a client who tries again would notice as a failure.
func TestGracefulStopHandsOver(t *testing.T) {
	c := clustertest.Start(t, 3, clustertest.Profile("default"))
	leader := c.Leader()
	rest := c.Followers(leader)
	stopped := make(chan error, 1)
	go func() { stopped <- leader.Stop() }()
	for n := range 40 {
		rest[n%2].MustDo("PUT", fmt.Sprintf("/v1/services/web/instances/w%d", n), body, 201)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopping the leader: %v", err)
	}
	if !strings.Contains(leader.Log(), "leadership") {
		t.Errorf("the leader's log does not say that it handed over:\n%s", leader.Log())
	}
}

// TestLeaderTransferAndRemoval use the routes an operator would.
func TestLeaderTransferAndRemoval(t *testing.T) {
	c := clustertest.Start(t, 3)
	leader := c.Leader()
	target := c.Followers(leader)[0]
	target.MustDo("POST", "/v1/cluster/leader", `{"to":"`+target.Node().ID()+`"}`, 200)
	c.Wait("leadership to move", func() bool { return c.Leader() == target })

	victim := c.Followers(target)[0]
	id := victim.Node().ID()
	victim.Kill()
	target.MustDo("DELETE", "/v1/cluster/members/"+id, "", 200)
	if status, text, err := target.Do("DELETE", "/v1/cluster/members/nobody", ""); err != nil || status != 404 || !strings.Contains(text, "unknown_member") {
		t.Errorf("removing nobody: %d %s %v", status, text, err)
	}
	victim.Start()
	err := victim.Ended()
	if err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("a removed member came back: %v", err)
	}
}
