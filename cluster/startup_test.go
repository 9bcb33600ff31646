package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestStartup: a start that takes long says where it is, in the snapshot and in the
// log, until the node answers reads.
func TestStartup(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1, withSnapshots).start()
	n := g.leader()
	for writes := 0; len(snapshots(n)) == 0 || writes < 60; writes++ {
		n.write(fmt.Sprint(writes))
	}
	n.stop()
	open := map[string]chan struct{}{"restore": make(chan struct{}), "apply": make(chan struct{})}
	n.gate = func(what string) { <-open[what] }
	n.start()
	stage := func(want, unit string) {
		t.Helper()
		eventually(t, want, func() bool {
			s := n.Startup()
			return s.Stage == want && s.Unit == unit && (unit == "" || s.Total > 0 && s.Done <= s.Total)
		})
	}
	stage("reading the snapshot", "bytes")
	if s := n.Startup(); s.Done != s.Total {
		t.Errorf("all of the snapshot was read, and %s", s)
	}
	close(open["restore"])
	stage("applying the log", "entries")
	if s := n.Startup(); s.Done >= s.Total || s.Total < 60 {
		t.Errorf("not all of the log was applied, and %s", s)
	}
	if n.log.count("reads are answered") != 1 { // of the first start
		t.Error("the log says that reads are answered")
	}
	close(open["apply"])
	stage("", "")
	eventually(t, "the log to say so", func() bool { return n.log.count("reads are answered") == 2 })
}

// TestSnapshotFails: a snapshot that cannot be written is counted and told, writes go
// on, and raft tries again.
func TestSnapshotFails(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1, withSnapshots).start()
	n := g.leader()
	folder := filepath.Join(n.cfg.DataDir, "snapshots")
	if err := os.Rename(folder, folder+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	writes := 0
	eventually(t, "a snapshot that fails", func() bool {
		n.write(fmt.Sprint(writes))
		writes++
		return n.log.count("a snapshot was not written") > 0
	})
	if got := gathered(t, n, "muster_cluster_snapshot_failures_total"); got < 1 {
		t.Errorf("counted %v snapshots that failed", got)
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder+"-away", folder); err != nil {
		t.Fatal(err)
	}
	before := len(snapshots(n))
	eventually(t, "a snapshot after all", func() bool {
		n.write(fmt.Sprint(writes))
		writes++
		return len(snapshots(n)) > before
	})
}

// gathered is the value of a counter of the node.
func gathered(t *testing.T, n *node, name string) float64 {
	t.Helper()
	all, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return -1
}

// TestAdvertisedNameComesLate: a host that does not resolve yet is looked up again,
// with a line for each time; who is told to stop meanwhile does.
func TestAdvertisedNameComesLate(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1, func(n *node) { n.cfg.Addrs.Advertise = "not-there-yet.invalid" }).start()
	n := g.nodes[0]
	eventually(t, "two lines about the name", func() bool { return n.log.count("does not resolve yet, trying on") >= 2 })
	if s := n.Startup(); s.Stage != "resolving --advertise" {
		t.Errorf("the node is busy with %q", s.Stage)
	}
	if err := n.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}
