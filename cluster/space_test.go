package cluster_test

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster"
)

// disk is a file system of 100 bytes of which some are free.
type disk struct{ free atomic.Uint64 }

func (d *disk) space(string) (free, total uint64, err error) { return d.free.Load(), 100, nil }

// disks gives every node one that is empty.
func disks(of map[*node]*disk) func(*node) {
	return func(n *node) {
		d := &disk{}
		d.free.Store(100)
		of[n] = d
		n.faults.Space = d.space
	}
}

// writeCode tries one write and returns the code it was refused with.
func writeCode(t *testing.T, n *node) muster.Code {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := n.tryWrite(ctx, "x")
	if err == nil {
		return ""
	}
	return muster.CodeOf(err)
}

// TestDiskLow: a leader whose disk is nearly full hands leadership to one whose is
// not; where all are, writes are refused on every node, until there is room again.
func TestDiskLow(t *testing.T) {
	of := map[*node]*disk{}
	g := newGroup(t, 3, disks(of)).start()
	first := g.leader()
	first.write("a")

	of[first].free.Store(9)
	eventually(t, "another to lead", func() bool {
		_, _, leads := first.Session()
		return !leads && g.leader() != first
	})
	first.write("b") // by the new leader
	g.converge()

	for _, d := range of {
		d.free.Store(9)
	}
	for _, n := range g.nodes {
		eventually(t, "writes to be refused", func() bool { return writeCode(t, n) == muster.CodeDiskFull })
	}
	before := len(g.leader().machine.writes())
	out := g.leader().Propose(t.Context(), [][]byte{{opWrite, 'c'}})
	e, ok := errors.AsType[*muster.Error](out[0].Err)
	if !ok || e.Code != muster.CodeDiskFull || e.RetryAfter == 0 || e.Hint == "" {
		t.Errorf("refused with %v", out[0].Err)
	}
	if got := len(g.converge()); got != before {
		t.Errorf("%d writes were applied although all were refused", got-before)
	}

	for _, d := range of {
		d.free.Store(10) // enough, and not by enough to be sure
	}
	if got := writeCode(t, g.leader()); got != muster.CodeDiskFull {
		t.Errorf("at the floor a write got %q", got)
	}
	for _, d := range of {
		d.free.Store(12)
	}
	for _, n := range g.nodes {
		n.write("d")
	}
	g.converge()
}

// TestDiskFullAllTheSame: a write that meets the end of the disk ends the node.
func TestDiskFullAllTheSame(t *testing.T) {
	g := newGroup(t, 1).start()
	n := g.leader()
	n.write("a")
	n.faults.Log.FailNext(syscall.ENOSPC)
	writeCode(t, n)
	if code := exitCode(n.end()); code != 74 {
		t.Errorf("exit code %d, want 74", code)
	}
}

func TestMinFreePercent(t *testing.T) {
	if _, err := cluster.New(cluster.Config{DataDir: t.TempDir(), MinFreePercent: 91}, cluster.Deps{FSM: newMachine()}); exitCode(err) != 78 {
		t.Errorf("91 percent: %v", err)
	}
}
