package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

// previousBinary names, in the environment, the muster of the release before: see
// scripts/upgrade.sh.
const previousBinary = "MUSTER_PREVIOUS"

// versions are the binaries of an upgrade: that of the release before and this build,
// or this build and one that is a feature level ahead of it.
func versions(t *testing.T) (older, newer string) {
	t.Helper()
	if older = os.Getenv(previousBinary); older != "" {
		return older, ""
	}
	newer = filepath.Join(t.TempDir(), "muster")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "nextlevel", "-o", newer, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the version after: %v\n%s", err, out)
	}
	return "", newer
}

// steadyWriter registers instances at all nodes in turn, none of which may be refused
// twice: once on the node that was asked and once on another.
type steadyWriter struct {
	t      *testing.T
	nodes  []*process
	client *http.Client
	acked  []string // of run, until it has returned
	count  atomic.Int64
}

func (w *steadyWriter) run(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		id := fmt.Sprintf("w-%d", n)
		var told []string
		for try := range 2 {
			node := w.nodes[(n+try)%len(w.nodes)]
			status, text, err := request(context.WithoutCancel(ctx), w.client, "PUT", node.url+fmt.Sprintf("/v1/services/fw%d/instances/%s?timeout=20s", n%5, id),
				fmt.Sprintf(`{"address":"10.0.0.1","port":%d,"ttl":"none"}`, 1+n%65535))
			if err == nil && (status == 200 || status == 201) {
				told = nil
				w.acked = append(w.acked, id)
				w.count.Add(1)
				break
			}
			told = append(told, fmt.Sprintf("%s: %d %s %v", node.url, status, text, err))
		}
		if told != nil {
			w.t.Errorf("%s was refused twice: %q", id, told)
		}
	}
}

// upgrade is a cluster under load whose binaries change.
type upgrade struct {
	*testing.T
	nodes        []*process
	older, newer string
	writer       *steadyWriter
	fleet        *fleet
}

// to replaces the binary of a node, as an operator would.
func (u *upgrade) to(n int, exe string) {
	u.Helper()
	p := u.nodes[n]
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		u.Fatalf("%s ended with %d\n%s", p.url, code, tail(p.log.String(), 20))
	}
	p.exe = exe
	p.start()
	p.waitReady("?require=leader")
	before := u.writer.count.Load()
	waitFor(u.T, "10 more writes", func() bool { return u.writer.count.Load() >= before+10 })
	u.fleet.settle(fmt.Sprintf("the restart of n%d", n+1))
}

// levels are the feature level of the cluster and the lowest its members know.
func (u *upgrade) levels() (cluster, lowest uint64) {
	u.Helper()
	status, text, err := request(u.Context(), u.writer.client, "GET", u.nodes[0].url+"/v1/cluster", "")
	var c muster.Cluster
	if err != nil || status != 200 || json.Unmarshal([]byte(text), &c) != nil || len(c.Members) != len(u.nodes) {
		return 0, 0
	}
	lowest = c.Members[0].FeatureLevel
	for _, m := range c.Members {
		lowest = min(lowest, m.FeatureLevel)
	}
	return c.FeatureLevel, lowest
}

// TestRollingUpgrade takes three processes under load from one version to the next,
// back while that is allowed, and on again: no write fails twice, nobody who beats
// expires, a watch misses nothing, and once the feature level has risen the older
// version is refused.
func TestRollingUpgrade(t *testing.T) {
	u := &upgrade{T: t, nodes: newCluster(t, 3)}
	u.older, u.newer = versions(t)
	client := &http.Client{Timeout: 30 * time.Second}
	var addrs []string
	for _, p := range u.nodes {
		p.exe = u.older
		p.start()
		addrs = append(addrs, p.url)
	}
	for _, p := range u.nodes {
		p.waitReady("?require=leader")
	}
	u.writer = &steadyWriter{t: t, nodes: u.nodes, client: client}
	u.fleet = &fleet{t: t, nodes: u.nodes, client: client, ttl: fleetTTL, alive: map[string]bool{}}
	w := startWatch(t, "--prefix", "f", "-o", "json", "--addr", strings.Join(addrs, ","))
	w.await(&w.out, `^\{"type":"synced"`)
	u.fleet.register(60)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { u.fleet.run(ctx) })
	wg.Go(func() { u.writer.run(ctx) })
	defer wg.Wait()
	defer stop()

	var base, lowest uint64
	waitFor(t, "the levels of all", func() bool { base, lowest = u.levels(); return lowest > 0 && base == lowest })
	u.to(0, u.newer)
	u.to(1, u.newer)
	if level, _ := u.levels(); level != base {
		t.Errorf("the level rose from %d to %d with a node that does not know it", base, level)
	}
	if _, out, _ := command(t, "members", "--addr", addrs[0]); u.newer != "" && !strings.Contains(out, "feature level 1 until n3 is upgraded") {
		t.Errorf("muster members does not say what it waits for:\n%s", out)
	}
	u.to(1, u.older) // back
	u.to(1, u.newer)
	u.to(2, u.newer)
	var level uint64
	waitFor(t, "the level to rise to what all know", func() bool { level, lowest = u.levels(); return lowest > 0 && level == lowest })
	if os.Getenv(previousBinary) == "" && level != base+1 {
		t.Errorf("the level is %d, want %d", level, base+1)
	}
	// Once more with the new level's entries in the log.
	u.to(0, u.newer)
	stop()
	wg.Wait()

	checkWatched(t, w, u.writer.acked)
	if n := u.fleet.unknown.Load(); n > 0 {
		t.Errorf("%d instances that beat were forgotten", n)
	}
	if level > base {
		u.refused()
	}
	t.Logf("%d writes, %d batches of heartbeats, level %d to %d", len(u.writer.acked), u.fleet.rounds.Load(), base, level)
}

// refused starts the older version on a data directory of the new level, and as a
// newcomer.
func (u *upgrade) refused() {
	p := u.nodes[2]
	p.signal(syscall.SIGTERM)
	p.wait()
	p.exe, p.log = u.older, nil
	p.start()
	if code := p.wait(); code != exitConfig || !strings.Contains(p.log.String(), "upgrade this node") {
		u.Errorf("the older version on newer data ended with %d and said\n%s", code, p.log.String())
	}
	if lines := strings.Count(strings.TrimSpace(p.log.String()), "\n"); lines > 0 {
		u.Errorf("it needs more than a line to say so:\n%s", p.log.String())
	}
	// The same node with nothing: the cluster does not want it.
	p.args[slices.Index(p.args, "--data-dir")+1] += "-new"
	p.log = nil
	p.start()
	if code := p.wait(); code != exitConfig || !strings.Contains(p.log.String(), "upgrade this node") {
		u.Errorf("the older version as a newcomer ended with %d and said\n%s", code, tail(p.log.String(), 20))
	}
}

// checkWatched: every write was seen exactly once, in order, and nothing expired.
func checkWatched(t *testing.T, w *watching, acked []string) {
	t.Helper()
	if len(acked) > 0 {
		w.await(&w.out, `"id":"`+acked[len(acked)-1]+`"`)
	}
	w.end()
	seen, last := map[string]int{}, uint64(0)
	for line := range strings.Lines(w.out.String()) {
		var m struct {
			Type string `json:"type"`
			ID   uint64 `json:"id"`
			Data struct {
				Events []muster.Event `json:"events"`
			} `json:"data"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if m.Type == "resync" {
			t.Error("the watch had to begin anew")
		}
		if m.Type != "change" {
			continue
		}
		if m.ID <= last {
			t.Errorf("%d comes after %d", m.ID, last)
		}
		last = m.ID
		for _, ev := range m.Data.Events {
			seen[ev.ID]++
			if ev.Type == muster.EventExpired {
				t.Errorf("%s expired", ev.ID)
			}
		}
	}
	for _, id := range acked {
		if seen[id] != 1 {
			t.Errorf("%s was seen %d times", id, seen[id])
		}
	}
}
