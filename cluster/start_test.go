package cluster_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster/cluster"
	"github.com/muster-registry/muster/cluster/logstore"
)

func TestRefusedConfigurations(t *testing.T) {
	good := func(t *testing.T) cluster.Config {
		return cluster.Config{
			DataDir: t.TempDir(), BootstrapExpect: 1, Timing: cluster.Timing{Profile: cluster.ProfileFast},
			Addrs: cluster.Addrs{API: "127.0.0.1:7400", Peer: "127.0.0.1:0", Gossip: "127.0.0.1:0"},
		}
	}
	for name, tc := range map[string]struct {
		change func(t *testing.T, c *cluster.Config)
		code   int
		says   string
	}{
		"a seed without port":    {func(t *testing.T, c *cluster.Config) { c.Join = []string{"127.0.0.1"} }, 78, "--join"},
		"a seed with port zero":  {func(t *testing.T, c *cluster.Config) { c.Join = []string{"127.0.0.1:0"} }, 78, "--join"},
		"an unknown profile":     {func(t *testing.T, c *cluster.Config) { c.Timing.Profile = "warp" }, 78, "--raft-profile"},
		"a negative expectation": {func(t *testing.T, c *cluster.Config) { c.BootstrapExpect = -1 }, 78, "--bootstrap-expect"},
		"no data directory":      {func(t *testing.T, c *cluster.Config) { c.DataDir = "" }, 78, "data directory"},
		"an unwritable data directory": {func(t *testing.T, c *cluster.Config) {
			c.DataDir = filepath.Join(t.TempDir(), "file", "data")
			if err := os.WriteFile(filepath.Dir(c.DataDir), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, 74, "data directory"},
		"an address nobody can reach": {func(t *testing.T, c *cluster.Config) { c.Addrs.Peer = "0.0.0.0:0" }, 78, "--advertise"},
		"a directory of the future": {func(t *testing.T, c *cluster.Config) {
			if err := os.WriteFile(filepath.Join(c.DataDir, "VERSION"), []byte("muster-data 9\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, 78, "another version"},
		"a log without an identity": {func(t *testing.T, c *cluster.Config) {
			if err := os.WriteFile(filepath.Join(c.DataDir, "raft.db"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, 65, "wipe"},
		"an identity that does not read back": {func(t *testing.T, c *cluster.Config) {
			if err := os.WriteFile(filepath.Join(c.DataDir, "identity.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, 65, "wipe"},
	} {
		t.Run(name, func(t *testing.T) {
			c := good(t)
			tc.change(t, &c)
			n, err := cluster.New(c, cluster.Deps{FSM: newMachine()})
			if err == nil {
				n.Close()
				t.Fatal("New took it")
			}
			if exitCode(err) != tc.code || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("New: %v (exit code %d), want %d and %q", err, exitCode(err), tc.code, tc.says)
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	g := newGroup(t, 1).start()
	n := g.leader()
	for _, change := range []func(*cluster.Addrs){
		func(a *cluster.Addrs) { a.Peer = n.cfg.Addrs.Peer },
		func(a *cluster.Addrs) { a.Gossip = n.cfg.Addrs.Gossip },
	} {
		c := n.cfg
		c.DataDir = t.TempDir()
		c.Addrs.Peer, c.Addrs.Gossip = "127.0.0.1:0", "127.0.0.1:0"
		change(&c.Addrs)
		_, err := cluster.New(c, cluster.Deps{FSM: newMachine()})
		if exitCode(err) != 78 || !strings.Contains(err.Error(), "in use") {
			t.Errorf("New on a port in use: %v, want exit code 78", err)
		}
	}
}

func TestSecondProcessOnADataDirectory(t *testing.T) {
	g := newGroup(t, 1).start()
	n := g.leader()
	c := n.cfg
	c.Addrs.Peer, c.Addrs.Gossip = "127.0.0.1:0", "127.0.0.1:0"
	_, err := cluster.New(c, cluster.Deps{FSM: newMachine()})
	if exitCode(err) != 78 || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("New on a directory in use: %v, want exit code 78", err)
	}
	n.write("unharmed")
}

func TestUnreachableSeed(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1, func(n *node) { n.cfg.Join = []string{freeAddr(t)} }).start()
	n := g.nodes[0]
	eventually(t, "a warning", func() bool { return n.log.count("cannot reach a node to join") > 0 })
	late := newGroup(t, 0)
	late.add(0, func(c *node) { c.cfg.Addrs.Gossip = n.cfg.Join[0] })
	late.start() // the seed comes up at last, and is taken in
	g.leader()
	eventually(t, "the seed as a member", func() bool { return len(n.Status().Members) == 2 })
	for _, n := range late.nodes {
		n.stop()
	}
}

func TestDoubtfulConfigurations(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 2, func(n *node) { n.cfg.Name = "same" }).start()
	g.leader()
	for what, text := range map[string]string{
		"an even number":  "an even number of voters",
		"one name of two": "two nodes show the same name",
	} {
		eventually(t, "a warning about "+what, func() bool {
			return g.nodes[0].log.count(text)+g.nodes[1].log.count(text) > 0
		})
	}
}

func TestFlippedByte(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	n := g.follower()
	for i := range 10 {
		n.write(fmt.Sprint(i))
	}
	g.converge()
	n.stop()
	const index = 5
	if err := logstore.FlipByte(filepath.Join(n.cfg.DataDir, "raft.db"), index); err != nil {
		t.Fatal(err)
	}
	err := n.tryStart()
	if err == nil {
		err = n.end()
	}
	if exitCode(err) != 65 || !strings.Contains(err.Error(), fmt.Sprint(index)) {
		t.Errorf("the damaged node ended with %v, want exit code 65 naming index %d", err, index)
	}
	n.cancel = nil
}

func withSnapshots(n *node) {
	n.faults.SnapshotInterval, n.faults.SnapshotThreshold, n.faults.TrailingLogs = 50*time.Millisecond, 20, 5
}

func snapshots(n *node) []string {
	list, err := filepath.Glob(filepath.Join(n.cfg.DataDir, "snapshots", "*-*-*"))
	if err != nil {
		n.t.Fatal(err)
	}
	list = slices.DeleteFunc(list, func(s string) bool { return strings.HasSuffix(s, ".tmp") })
	slices.Sort(list)
	return list
}

func TestSnapshotsAndTheirLoss(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1, withSnapshots).start()
	n := g.leader()
	writes := 0
	for len(snapshots(n)) < 2 || writes < 200 {
		n.write(fmt.Sprint(writes))
		writes++
	}
	n.stop()
	damage := func(snapshot string) {
		if err := os.WriteFile(filepath.Join(snapshot, "state.bin"), []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		n.start()
		g.leader()
		if err := n.ReadIndex(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(n.machine.writes()); got < writes {
			t.Errorf("%s there are %d writes, want %d", when, got, writes)
		}
		n.stop()
	}
	check("after a restart")
	list := snapshots(n)
	damage(list[len(list)-1])
	check("with the newest snapshot damaged")
	for _, s := range snapshots(n) {
		damage(s)
	}
	n.start()
	if err := n.end(); exitCode(err) != 65 || !strings.Contains(err.Error(), "wipe the data directory") {
		t.Errorf("with all snapshots damaged the node ended with %v, want exit code 65", err)
	}
	for _, s := range snapshots(n) {
		os.RemoveAll(s)
	}
	n.start()
	if err := n.end(); exitCode(err) != 65 || !strings.Contains(err.Error(), "wipe the data directory") {
		t.Errorf("with all snapshots gone the node ended with %v, want exit code 65", err)
	}
	n.cancel = nil
}

func TestFollowerCatchesUpBySnapshot(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, withSnapshots).start()
	leader := g.leader()
	n := g.others(leader)[0]
	g.isolate(n)
	for i := range 200 {
		leader.write(fmt.Sprint(i))
	}
	eventually(t, "two snapshots", func() bool { return len(snapshots(leader)) == 2 })
	g.links.HealAll()
	g.converge()
	n.write("back")
	g.converge()
}

func TestRestartOfAll(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	for i := range 20 {
		g.leader().write(fmt.Sprint(i))
	}
	want := g.converge()
	id := g.leader().ClusterID()
	for _, n := range g.nodes {
		eventually(t, "a cluster id on disk", func() bool { return n.log.count("part of a cluster") > 0 })
	}
	for _, n := range g.nodes {
		n.stop()
	}
	part := filepath.Join(g.nodes[0].cfg.DataDir, "identity.json.1.part") // of a crash while it was written
	if err := os.WriteFile(part, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := g.nodes[0].start()
	if _, err := os.Stat(part); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	eventually(t, "raft", func() bool { return first.CurrentTerm() > 0 })
	if _, ready := first.Freshness(); ready {
		t.Error("a node alone is ready after a restart")
	}
	if first.ClusterID() != id {
		t.Errorf("before it hears from others the node says its cluster is %q, want %q", first.ClusterID(), id)
	}
	for _, n := range g.nodes[1:] {
		n.start()
	}
	for _, n := range g.nodes {
		eventually(t, "readiness", func() bool { _, ready := n.Freshness(); return ready })
		if got := n.machine.writes(); len(got) < len(want) {
			t.Errorf("%s is ready with %d writes of %d", n.cfg.Name, len(got), len(want))
		}
	}
	// Without a leader a node that was ready stays so, and gets older.
	for _, n := range g.nodes[1:] {
		n.kill()
	}
	eventually(t, "age", func() bool { stale, ready := first.Freshness(); return ready && stale > 2*time.Second })
	for _, n := range g.nodes[1:] {
		n.start()
	}
	g.leader()
}
