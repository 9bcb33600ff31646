package clustertest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
)

// TestMassLoss: half a fleet falls silent at once. The governor holds it, except
// for a service that does not want that; it says so; what is heard from again is
// well, and once the governor is turned off the rest goes.
func TestMassLoss(t *testing.T) {
	c := clustertest.Start(t, 3)
	follower := c.Followers(c.Leader())[0]
	follower.MustDo("PUT", "/v1/services/batch/settings?reason=comes+and+goes", `{"protect":false}`, 200)

	var items []string
	for n := range 30 {
		for _, service := range []string{"web", "batch"} {
			items = append(items, fmt.Sprintf(`{"service":%q,"id":"i-%02d","address":"10.0.0.5","port":%d,"ttl":"2s"}`, service, n, 8000+n))
		}
	}
	follower.MustDo("POST", "/v1/batch/register", `{"instances":[`+strings.Join(items, ",")+`]}`, 200)

	var web, batch muster.View
	look := func() {
		t.Helper()
		for service, v := range map[string]*muster.View{"web": &web, "batch": &batch} {
			*v = muster.View{}
			clustertest.MustDecode(t, follower.MustDo("GET", "/v1/services/"+service, "", 200), v)
		}
	}
	c.Wait("the service without protection to empty", func() bool { look(); return len(batch.Instances) == 0 })
	if batch.EmptyReason != muster.EmptyExpired {
		t.Errorf("batch is empty because of %q", batch.EmptyReason)
	}
	c.Wait("the governor to hold the other", func() bool { look(); return web.Protected })
	if len(web.Instances) != 30 {
		t.Errorf("%d of 30 are held", len(web.Instances))
	}
	for _, i := range web.Instances {
		if !i.Suspect || i.SuspectReason == "" || i.SuspectSince.IsZero() || i.Status != muster.StatusUp {
			t.Errorf("%s is shown as %s, suspect %v for %q since %v", i.ID, i.Status, i.Suspect, i.SuspectReason, i.SuspectSince)
		}
	}
	var cluster muster.Cluster
	clustertest.MustDecode(t, follower.MustDo("GET", "/v1/cluster", "", 200), &cluster)
	if g := cluster.Governor; !g.Enabled || !g.Active || g.Suspects != 30 {
		t.Errorf("the cluster shows %+v", g)
	}

	follower.MustDo("PUT", "/v1/services/web/instances/i-07/heartbeat", "", 200)
	c.Wait("one that was heard from again to be well", func() bool { look(); return !web.Find("i-07").Suspect })
	if len(web.Instances) != 30 {
		t.Errorf("%d of 30 are left", len(web.Instances))
	}
	follower.MustDo("PUT", "/v1/cluster/governor?reason=they+are+really+gone", `{"enabled":false}`, 200)
	c.Wait("the rest to go", func() bool { look(); return len(web.Instances) < 30 })
	events := follower.MustDo("GET", "/v1/events?service=web&limit=1000", "", 200)
	if !strings.Contains(events, `"cause":"released"`) {
		t.Errorf("the journal does not say that they were released: %s", events)
	}
	for _, m := range c.Members {
		m.MustDo("GET", "/v1/services/web?consistency=linearizable", "", 200)
		var g muster.Governor
		clustertest.MustDecode(t, m.MustDo("GET", "/v1/cluster/governor", "", 200), &g)
		if g.Enabled || g.Reason != "they are really gone" || !strings.HasPrefix(g.Actor, "ip:") {
			t.Errorf("%s shows the governor as %+v", m.Name, g)
		}
	}
}
