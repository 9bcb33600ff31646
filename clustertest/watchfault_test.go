package clustertest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
	"github.com/muster-registry/muster/fsm"
)

// TestWatchersUnderFaults: watchers go from node to node while services change at
// random, nodes are killed, stopped and cut off, one is given a snapshot, and a
// backup is restored. Whatever each of them is told is held against what was
// committed.
func TestWatchersUnderFaults(t *testing.T) {
	r := newRecord()
	c := clustertest.New(t, 3)
	var urls []string
	for _, m := range c.Members {
		m.Faults.SnapshotInterval, m.Faults.SnapshotThreshold, m.Faults.TrailingLogs = 200*time.Millisecond, 64, 32
		r.follow(m)
		urls = append(urls, m.URL())
		m.Start()
	}
	c.WaitReady()

	var last atomic.Uint64 // the index that all followers have to reach; 0: not known yet
	ctx, cancel := context.WithTimeout(t.Context(), 8*clustertest.Patience)
	defer cancel()
	var following, writing sync.WaitGroup
	var followers []*follower
	for n := range 12 {
		f := &follower{name: fmt.Sprintf("follower %d", n), urls: urls}
		switch n % 4 {
		case 0: // all
		case 1:
			f.services = []string{"s0"}
		case 2:
			f.services = []string{"never", "s1", "s3"}
		case 3:
			f.prefix = "s"
		}
		followers = append(followers, f)
		following.Go(func() {
			f.run(ctx, func(cursor uint64) bool { end := last.Load(); return end > 0 && cursor >= end })
		})
	}
	w := &writers{urls: urls}
	writeCtx, stopWriting := context.WithCancel(ctx)
	for range 6 {
		writing.Go(func() { w.run(writeCtx) })
	}
	// The verdict comes last, after everything that could fail the test sooner.
	defer func() { cancel(); stopWriting(); following.Wait(); writing.Wait() }()

	harass(t, c, r, w)

	stopWriting()
	writing.Wait()
	c.WaitReady()
	// Each of them wants one of these entries: it is then at the first or after it.
	for _, service := range []string{"s0", "s1"} {
		resp, text, err := c.Members[0].Request("PUT", "/v1/services/"+service+"/instances/last", body, nil)
		if err != nil || resp.StatusCode != http.StatusCreated {
			t.Fatalf("the last write: %v %s", err, text)
		}
		index, err := strconv.ParseUint(resp.Header.Get("Muster-Index"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		last.CompareAndSwap(0, index)
	}
	c.CheckEqualStates()
	following.Wait()
	r.seal()
	for _, err := range r.errs {
		t.Error(err)
	}
	var all verdict
	opened := 0
	for _, f := range followers {
		if f.err == nil && f.cursor.Load() < last.Load() {
			f.err = fmt.Errorf("has come only to %d of %d", f.cursor.Load(), last.Load())
		}
		if f.err != nil {
			t.Errorf("%s: %v", f.name, f.err)
		}
		v, err := f.check(r)
		if err != nil {
			t.Errorf("%s (%s): %v", f.name, f.query(0), err)
		}
		all.synced, all.resynced, all.changes, opened = all.synced+v.synced, all.resynced+v.resynced, all.changes+v.changes, opened+f.opened
	}
	t.Logf("%d writes, %d entries; %d streams, %d changes, synced %d times, %d of them anew", w.done.Load(), len(r.sorted), opened, all.changes, all.synced, all.resynced)
	if all.changes < 1000 || opened < 50 || all.resynced < len(followers)/2 {
		t.Error("that is too little to say anything")
	}
}

// harass does to the cluster what can happen to one, while it is written to.
func harass(t *testing.T, c *clustertest.Cluster, r *record, w *writers) {
	t.Helper()
	leader := c.Leader()
	others := c.Followers(leader)
	w.await(c, 100)
	backup := backupOf(t, leader)

	t.Log("kill a follower, and the leader")
	others[0].Kill()
	w.await(c, 50)
	others[0].Start()
	others[0].WaitReady("?require=leader")
	leader.Kill()
	c.Leader()
	w.await(c, 100)
	leader.Start()
	leader.WaitReady("?require=leader")

	t.Log("cut a follower off until it needs a snapshot")
	leader = c.Leader()
	cut := c.Followers(leader)[0]
	before := r.resetsOf(cut)
	for try := 0; r.resetsOf(cut) == before; try++ {
		if try == 5 {
			t.Fatal("the follower was never given a snapshot")
		}
		c.Isolate(cut)
		w.cut.Store(cut)
		w.await(c, 300)
		c.Heal()
		w.cut.Store(nil)
		index := c.Leader().Node().State().Index()
		c.Wait("the follower to catch up", func() bool { return cut.Node().State().Index() >= index })
	}

	t.Log("cut the leader off")
	leader = c.Leader()
	c.Isolate(leader)
	w.cut.Store(leader)
	w.await(c, 50)
	c.Heal()
	w.cut.Store(nil)
	c.WaitReady()

	t.Log("restore a backup")
	restore(t, c, backup)
	w.await(c, 50)

	t.Log("stop the leader, and start it again")
	leader = c.Leader()
	if err := leader.Stop(); err != nil {
		t.Errorf("stopping %s: %v", leader.Name, err)
	}
	w.await(c, 50)
	leader.Start()
	c.WaitReady()
	w.await(c, 50)
}

func backupOf(t *testing.T, m *clustertest.Member) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.Node().State().Backup().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restore puts a backup in the place of what is there. A change of the leader
// discards one that is not finished: it is then begun again.
func restore(t *testing.T, c *clustertest.Cluster, backup []byte) {
	t.Helper()
	var ops [][]byte
	ops = append(ops, fsm.Encode(fsm.RestoreBegin{ID: "r", Total: uint64(len(backup))}))
	for at := 0; at < len(backup); at += fsm.MaxRestoreChunk {
		ops = append(ops, fsm.Encode(fsm.RestoreChunk{ID: "r", Offset: uint64(at), Data: backup[at:min(len(backup), at+fsm.MaxRestoreChunk)]}))
	}
	ops = append(ops, fsm.Encode(fsm.RestoreCommit{ID: "r", SHA256: sha256.Sum256(backup)}))
	c.Wait("a restore to succeed", func() bool {
		for _, op := range ops {
			o := c.Leader().Node().Cluster().Propose(t.Context(), [][]byte{op})[0]
			if o.Err != nil {
				return false
			}
			if res, err := fsm.DecodeResult(o.Result); err != nil || res.Err != nil {
				t.Logf("a step of the restore: %v %v", err, res.Err)
				return false
			}
		}
		return true
	})
}

// writers change services at random, through any node; what fails, fails.
type writers struct {
	urls []string
	done atomic.Int64 // writes that were acknowledged
	// cut is the node that is cut off: a write there takes its time to fail, so that
	// it is seldom tried.
	cut atomic.Pointer[clustertest.Member]
}

// node is the URL of the node for the next write.
func (w *writers) node() (url string) {
	for range 3 {
		url = w.urls[rand.IntN(len(w.urls))]
		if cut := w.cut.Load(); cut == nil || cut.URL() != url {
			break
		}
	}
	return url
}

// await waits for so many more writes.
func (w *writers) await(c *clustertest.Cluster, more int64) {
	until := w.done.Load() + more
	c.Wait(fmt.Sprintf("%d more writes", more), func() bool { return w.done.Load() >= until })
}

func (w *writers) run(ctx context.Context) {
	for ctx.Err() == nil {
		method, path, body := randomWrite()
		cctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		req, err := http.NewRequestWithContext(cctx, method, w.node()+path, strings.NewReader(body))
		if err == nil {
			var resp *http.Response
			if resp, err = writerClient.Do(req); err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err == nil && resp.StatusCode < 300 {
					w.done.Add(1)
				}
			}
		}
		cancel()
	}
}

var writerClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func randomWrite() (method, path, body string) {
	item := func(service string) string {
		ttl := "none"
		if rand.IntN(20) == 0 {
			ttl = "1s" // runs out
		}
		return fmt.Sprintf(`{"service":%q,"id":"i%d","address":"10.0.0.5","port":80,"ttl":%q,"version":"%d"}`, service, rand.IntN(8), ttl, rand.IntN(1000))
	}
	service := fmt.Sprintf("s%d", rand.IntN(4))
	instance := fmt.Sprintf("/v1/services/%s/instances/i%d", service, rand.IntN(8))
	switch n := rand.IntN(20); {
	case n < 4:
		return "DELETE", instance, ""
	case n < 5:
		return "PUT", instance + "/override?timeout=1s", `{"status":"maintenance"}`
	case n < 6:
		return "DELETE", instance + "/override?timeout=1s", ""
	case n < 7:
		return "PUT", "/v1/services/" + service + "/settings", fmt.Sprintf(`{"panic_threshold":%d}`, rand.IntN(100))
	case n < 10:
		return "POST", "/v1/batch/register?timeout=1s", `{"instances":[` + item(service) + "," + item("s0") + "," + item("other") + "]}"
	}
	return "PUT", fmt.Sprintf("/v1/services/%s/instances/i%d?timeout=1s", service, rand.IntN(8)), fmt.Sprintf(`{"address":"10.0.0.6","port":%d,"ttl":"none"}`, 1+rand.IntN(60_000))
}

// TestRestoreWakesPolls: a restore raises every index, so that whoever waits is
// told of what is there now.
func TestRestoreWakesPolls(t *testing.T) {
	c := clustertest.Start(t, 3)
	m := c.Followers(c.Leader())[0]
	m.MustDo("PUT", "/v1/services/web/instances/before", body, 201)
	backup := backupOf(t, c.Leader())
	m.MustDo("PUT", "/v1/services/web/instances/after", body, 201)
	m.MustDo("PUT", "/v1/services/new/instances/after", body, 201)
	type answer struct {
		status int
		index  uint64
		text   string
	}
	answers := map[string]chan answer{}
	for _, path := range []string{"/v1/services/web", "/v1/services/new", "/v1/services", "/v1/services/web/instances/after"} {
		resp, _, err := m.Request("GET", path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan answer, 1)
		answers[path] = got
		go func() {
			resp, text, err := m.Request("GET", path+"?wait=10m&index="+resp.Header.Get("Muster-Index"), "", nil)
			if err != nil {
				text, resp = err.Error(), &http.Response{}
			}
			index, _ := strconv.ParseUint(resp.Header.Get("Muster-Index"), 10, 64)
			got <- answer{resp.StatusCode, index, text}
		}()
	}
	c.Wait("the polls to wait", func() bool { return metric(t, m, "muster_httpapi_waiting_polls") == 4 })
	restore(t, c, backup)
	for path, want := range map[string]struct {
		status       int
		holds, lacks string
	}{
		"/v1/services/web":                 {200, `"id":"before"`, `"id":"after"`},
		"/v1/services/new":                 {404, "unknown_service", "after"},
		"/v1/services":                     {200, `"service":"web"`, `"service":"new"`},
		"/v1/services/web/instances/after": {404, "unknown_instance", "10.0.0.5"},
	} {
		got := <-answers[path]
		if epoch, _ := muster.SplitIndex(got.index); got.status != want.status || epoch != 1 || !strings.Contains(got.text, want.holds) || strings.Contains(got.text, want.lacks) {
			t.Errorf("%s: answered %d at %d: %s", path, got.status, got.index, got.text)
		}
	}
	c.CheckEqualStates()
}

// TestWatchersOfOthersSleep: what is done to B is no concern of those who watch A.
func TestWatchersOfOthersSleep(t *testing.T) {
	c := clustertest.Start(t, 1)
	m := c.Members[0]
	m.MustDo("PUT", "/v1/services/a/instances/1", `{"address":"10.0.0.5","port":80,"ttl":"1m"}`, 201)
	m.MustDo("PUT", "/v1/services/b/instances/1", body, 201)
	resp, _, err := m.Request("GET", "/v1/services/a", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	index := resp.Header.Get("Muster-Index")
	sa, sb := mustWatch(t, m, "service=a"), mustWatch(t, m, "service=b")
	for _, s := range []*stream{sa, sb} {
		s.expect(t, "snapshot")
		s.expect(t, "synced")
	}
	polled := make(chan string, 1)
	go func() {
		_, text, err := m.Do("GET", "/v1/services/a?wait=10m&index="+index, "")
		if err != nil {
			text = err.Error()
		}
		polled <- text
	}()
	c.Wait("the poll to wait", func() bool { return metric(t, m, "muster_httpapi_waiting_polls") == 1 })
	before := metric(t, m, "muster_watch_wakes_total")

	const many = 1000
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := w; n < many; n += 8 {
				m.MustDo("PUT", "/v1/services/a/instances/1/heartbeat", "", 200)
				m.MustDo("PUT", "/v1/services/b/instances/1", fmt.Sprintf(`{"address":"10.0.0.5","port":%d,"ttl":"none"}`, 1+n), 200)
				if n%100 == 0 { // the same again is no change
					m.MustDo("PUT", "/v1/services/a/instances/1", `{"address":"10.0.0.5","port":80,"ttl":"1m"}`, 200)
				}
			}
		})
	}
	told := 0
	for told < many-1 { // port 80 may be what it has already
		var ch change
		sb.expect(t, "change").decode(t, &ch)
		told += len(ch.Events)
	}
	wg.Wait()
	woken := metric(t, m, "muster_watch_wakes_total") - before
	if got := metric(t, m, "muster_httpapi_waiting_polls"); got != 1 {
		t.Errorf("the poll of a was answered with %s", <-polled)
	}
	m.MustDo("PUT", "/v1/services/a/instances/2", body, 201)
	var ch change
	sa.expect(t, "change").decode(t, &ch)
	if got := ch.text(); got != "a/2 registered" {
		t.Errorf("the watcher of a was told %s", got)
	}
	if text := <-polled; !strings.Contains(text, `"id":"2"`) {
		t.Errorf("the poll of a was answered with %s", text)
	}
	// All wakes were those of b's watcher: had a's been woken too, half of them
	// would have been for nothing.
	if spurious := metric(t, m, "muster_watch_spurious_wakes_total"); woken == 0 || spurious != 0 {
		t.Errorf("%v wakes, of which %v for nothing", woken, spurious)
	}
	var v muster.View
	clustertest.MustDecode(t, m.MustDo("GET", "/v1/services/a", "", 200), &v)
	if len(v.Instances) != 2 {
		t.Errorf("a has %d instances", len(v.Instances))
	}
}
