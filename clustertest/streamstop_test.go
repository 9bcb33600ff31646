package clustertest_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster/clustertest"
)

// metric is the sum of a metric's series on a node, by the beginning of a line of
// its page.
func metric(t testing.TB, m *clustertest.Member, name string) (sum float64) {
	t.Helper()
	page := m.MustDo("GET", "/metrics", "", 200)
	for _, line := range regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(name)+`(?:\{.*\})? (\S+)$`).FindAllStringSubmatch(page, -1) {
		v, err := strconv.ParseFloat(line[1], 64)
		if err != nil {
			t.Fatalf("%s: %v", line[0], err)
		}
		sum += v
	}
	return sum
}

// host is the address of a node's API.
func host(m *clustertest.Member) string { return strings.TrimPrefix(m.URL(), "http://") }

// TestStopWithWatchers: a leader that stops says goodbye to its streams and
// answers its long polls, and does so within seconds.
func TestStopWithWatchers(t *testing.T) {
	const streams, polls = 500, 200
	c := clustertest.Start(t, 3)
	leader := c.Leader()
	leader.MustDo("PUT", "/v1/services/web/instances/web-1", body, 201)
	resp, _, err := leader.Request("GET", "/v1/services/web", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	watching := startSwarm(t, order{Addrs: []string{host(leader)}, Count: streams, Path: "/v1/watch?service=web"})
	polling := startSwarm(t, order{
		Addrs: []string{host(leader)}, Count: polls, Path: "/v1/services/web?wait=10m&index=" + resp.Header.Get("Muster-Index"),
	})
	watching.await("synced")
	c.Wait("the polls to wait", func() bool { return metric(t, leader, "muster_httpapi_waiting_polls") == polls })
	start := time.Now()
	if err := leader.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("the leader stopped in %s", time.Since(start))
	watching.await("goodbye")
	watching.await("closed")
	polling.await("answered")
	polling.await("closed")
	if strings.Contains(leader.Log(), "requests were cut off") {
		t.Errorf("somebody was cut off who was not slow:\n%s", leader.Log())
	}
}
