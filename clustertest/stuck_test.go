package clustertest_test

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster/clustertest"
)

// large is a registration that makes an event of some 16 KB.
func large(port int) string {
	var meta []string
	for n := range 15 {
		meta = append(meta, fmt.Sprintf(`"m%d":%q`, n, strings.Repeat("x", 1000)))
	}
	return fmt.Sprintf(`{"address":"10.0.0.5","port":%d,"ttl":"none","meta":{%s}}`, port, strings.Join(meta, ","))
}

// clog changes a service until none of the stuck connections takes more, and
// returns how long after each answer the last of those who read was told.
func clog(t testing.TB, m *clustertest.Member, reading *swarm, changes int) (late []float64) {
	t.Helper()
	for n := 1; n <= changes; n++ {
		resp, text, err := m.Request("PUT", "/v1/services/web/instances/web-1", large(n), nil)
		answered := time.Now()
		if err != nil || resp.StatusCode >= 300 {
			t.Fatalf("%v %s", err, text)
		}
		late = append(late, max(0, reading.await("change:"+strconv.Itoa(n)).Sub(answered).Seconds()*1000))
	}
	return late
}

// TestStuckWatchers: those who never read are dropped, and the others are told of
// everything all the while.
func TestStuckWatchers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the write deadline")
	}
	const stuck, reading = 500, 20
	c := clustertest.Start(t, 1)
	m := c.Members[0]
	m.MustDo("PUT", "/v1/services/web/instances/web-1", body, http.StatusCreated)
	open := func(n float64) func() bool {
		return func() bool { return metric(t, m, "muster_watch_watchers") == n }
	}
	readers := startSwarm(t, order{Addrs: []string{host(m)}, Count: reading, Path: "/v1/watch?service=web"})
	readers.await("synced")
	startSwarm(t, order{Addrs: []string{host(m)}, Count: stuck, Path: "/v1/watch?service=web", Stuck: true}).await("open")
	c.Wait("all streams to be open", open(stuck+reading))
	const changes = 30
	clog(t, m, readers, changes)
	c.Wait("those who are stuck to be dropped", open(reading))
	m.MustDo("PUT", "/v1/services/web/instances/web-1", large(changes+1), 200)
	readers.await("change:" + strconv.Itoa(changes+1))
	if err := m.Stop(); err != nil {
		t.Error(err)
	}
	readers.await("goodbye")
}

// BenchmarkStuckWatchers: 9,000 watchers that never read their socket, and what
// they cost: the node, in memory, and 1,000 others, in time.
func BenchmarkStuckWatchers(b *testing.B) {
	const stuck, reading = watchers * 9 / 10, watchers / 10
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as muster server does
	c := clustertest.Start(b, 1, clustertest.Profile("default"))
	m := c.Members[0]
	m.MustDo("PUT", "/v1/services/web/instances/web-1", body, http.StatusCreated)
	readers := startSwarm(b, order{Addrs: []string{host(m)}, Count: reading, Path: "/v1/watch?service=web"})
	readers.await("synced")
	alone := clog(b, m, readers, 20)
	before := resident(b)
	startSwarm(b, order{Addrs: []string{host(m)}, Count: stuck, Path: "/v1/watch?service=web", Stuck: true}).await("open")
	c.Wait("all streams to be open", func() bool { return metric(b, m, "muster_watch_watchers") == stuck+reading })
	var beside []float64
	for n := 21; n <= 40; n++ {
		m.MustDo("PUT", "/v1/services/web/instances/web-1", large(n), http.StatusOK)
		answered := time.Now()
		beside = append(beside, max(0, readers.await("change:"+strconv.Itoa(n)).Sub(answered).Seconds()*1000))
	}
	clogged := resident(b)
	c.Wait("those who are stuck to be dropped", func() bool { return metric(b, m, "muster_watch_watchers") == reading })
	b.ReportMetric((clogged-before)/stuck/1024, "KiB/stuck")
	b.ReportMetric(median(alone), "ms_last_told_alone")
	b.ReportMetric(median(beside), "ms_last_told_beside")
	b.ReportMetric(0, "ns/op")
}
