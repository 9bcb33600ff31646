package clustertest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
	"github.com/muster-registry/muster/node"
)

// TestRecover: two of three are lost for good. The third goes on alone as a cluster
// of another id, with all it held; one of the lost that comes back as it was stays
// out, and joins once it was repaired.
func TestRecover(t *testing.T) {
	c := clustertest.Start(t, 3)
	for n := range 20 {
		c.Leader().MustDo("PUT", fmt.Sprintf("/v1/services/web/instances/i-%02d", n), body, 201)
	}
	c.Leader().MustDo("PUT", "/v1/services/web/settings", `{"strategy":"ewma"}`, 200)
	c.CheckEqualStates()
	var before muster.Cluster
	clustertest.MustDecode(t, c.Members[0].MustDo("GET", "/v1/cluster", "", 200), &before)
	kept, lost := c.Members[0], c.Members[1:]
	for _, m := range c.Members {
		m.Kill()
	}

	done, err := node.Recover(t.Context(), kept.Dir(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Lost) != 2 || done.PeerAddr == "" || done.Index == 0 {
		t.Errorf("recovered %+v", done)
	}
	kept.Start()
	kept.WaitReady("?require=leader")
	var v muster.View
	clustertest.MustDecode(t, kept.MustDo("GET", "/v1/services/web?consistency=linearizable", "", 200), &v)
	if len(v.Instances) != 20 || v.Settings == nil || v.Settings.Strategy != muster.StrategyEWMA {
		t.Errorf("%d instances are left, settings %+v", len(v.Instances), v.Settings)
	}
	var after muster.Cluster
	clustertest.MustDecode(t, kept.MustDo("GET", "/v1/cluster", "", 200), &after)
	if after.ClusterID == before.ClusterID || after.ClusterID == "" || len(after.Members) != 1 {
		t.Errorf("the cluster is %s with %d members, was %s", after.ClusterID, len(after.Members), before.ClusterID)
	}
	kept.MustDo("PUT", "/v1/services/web/instances/later", body, 201)

	lost[0].Start()
	c.Wait("the one that came back as it was to be kept out, in words", func() bool {
		return strings.Contains(lost[0].Log(), "cluster") && strings.Contains(lost[0].Log()+kept.Log(), before.ClusterID) &&
			strings.Contains(lost[0].Log()+kept.Log(), after.ClusterID)
	})
	status, text, err := lost[0].Do("GET", "/v1/services/web?consistency=linearizable&timeout=1s", "")
	if err != nil || status != 503 {
		t.Errorf("it answers %d %s %v", status, text, err)
	}
	lost[0].Kill()

	for _, m := range lost {
		aside, err := node.Repair(m.Dir())
		if err != nil || !strings.HasPrefix(aside, m.Dir()) {
			t.Fatal(aside, err)
		}
		m.Start()
	}
	c.WaitReady()
	c.Wait("three voters", func() bool {
		var now muster.Cluster
		clustertest.MustDecode(t, kept.MustDo("GET", "/v1/cluster", "", 200), &now)
		voters := 0
		for _, m := range now.Members {
			if m.State != muster.MemberLearner {
				voters++
			}
		}
		return voters == 3
	})
	lost[1].MustDo("GET", "/v1/services/web/instances/later?consistency=linearizable", "", 200)
	c.CheckEqualStates()
}

// TestOfflineToolsRefuse: a directory that is in use, empty, or none.
func TestOfflineToolsRefuse(t *testing.T) {
	c := clustertest.Start(t, 1)
	used, none := c.Members[0].Dir(), t.TempDir()
	for what, dir := range map[string]string{"in use": used, "empty": none, "none": none + "/no"} {
		if _, err := node.Repair(dir); err == nil {
			t.Errorf("repair of one that is %s: no error", what)
		}
		if _, err := node.Recover(t.Context(), dir, "", nil); err == nil {
			t.Errorf("recover of one that is %s: no error", what)
		}
	}
	c.Members[0].MustDo("GET", "/v1/services", "", 200)
}
