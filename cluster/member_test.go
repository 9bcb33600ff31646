package cluster_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
)

func TestWipedFollowerReturnsAsANewMember(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	n := g.follower()
	n.write("before")
	old := n.ID()
	n.kill()
	n.wipe()
	n.start()
	if n.ID() == old {
		t.Fatal("an emptied data directory kept its id")
	}
	eventually(t, "the replacement", func() bool {
		v := g.leader().Voters()
		return len(v) == 3 && slices.Contains(v, n.ID()) && !slices.Contains(v, old)
	})
	n.write("after")
	g.converge()
	for _, other := range g.nodes {
		if !other.machine.MemberRemoved(old) {
			t.Errorf("%s does not remember that %s was replaced", other.cfg.Name, old)
		}
	}
}

func TestRemovedMemberIsRefused(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	leader := g.leader()
	n, other := g.others(leader)[0], g.others(leader)[1]
	if err := other.RemoveMember(t.Context(), n.ID()); err != nil {
		t.Fatalf("RemoveMember: %v", err)
	}
	if err := n.end(); exitCode(err) != 78 || !strings.Contains(err.Error(), "removed") {
		t.Errorf("the removed node ended with %v, want exit code 78", err)
	}
	if err := other.RemoveMember(t.Context(), leader.ID()); !errors.Is(err, muster.CodeConflict) && err != nil {
		t.Logf("removing the leader of two: %v", err)
	}
	n.start()
	if err := n.end(); exitCode(err) != 78 {
		t.Errorf("the removed node, started again, ended with %v, want exit code 78", err)
	}
}

func TestOldCopyOfADataDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	n := g.follower()
	n.write("one")
	copied := t.TempDir()
	n.stop()
	if err := os.CopyFS(copied, os.DirFS(n.cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n.start()
		eventually(t, "the boot counter in the state", func() bool {
			return g.leader().machine.MemberBoot(n.ID()) == n.machine.MemberBoot(n.ID()) && n.machine.MemberBoot(n.ID()) > 1
		})
		boot := n.machine.MemberBoot(n.ID())
		n.stop()
		if boot < 2 {
			t.Fatalf("the boot counter is %d", boot)
		}
	}
	n.wipe()
	if err := os.CopyFS(n.cfg.DataDir, os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	n.start()
	if err := n.end(); exitCode(err) != 78 || !strings.Contains(err.Error(), "old copy") {
		t.Errorf("the old copy ended with %v, want exit code 78", err)
	}
}

func TestCopyOfARunningNodeStaysOut(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	n := g.follower()
	n.write("one")
	copied := g.add(3, func(c *node) {
		if err := os.CopyFS(c.cfg.DataDir, os.DirFS(n.cfg.DataDir)); err != nil {
			t.Fatal(err)
		}
		c.cfg.Join = []string{n.cfg.Addrs.Gossip}
	}).start()
	leader := g.nodes[0]
	eventually(t, "somebody to complain", func() bool {
		return copied.log.count("still runs at")+leader.log.count("still runs at") > 0
	})
	n.write("two")
	select {
	case <-n.ended:
		t.Errorf("the original ended: %v", n.err)
	default:
	}
	if got := copied.machine.writes(); slices.Contains(got, "two") {
		t.Errorf("the copy takes part: %q", got)
	}
	copied.kill()
	g.nodes = g.nodes[:3]
	g.converge()
}

func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	g.leader().write("three")
	join := []string{g.nodes[0].cfg.Addrs.Gossip}
	joiner := func(n *node) { n.cfg.Join = join }
	fourth := g.add(0, joiner).start()
	eventually(t, "a learner", func() bool { return len(g.leader().Status().Members) == 4 })
	g.converge()
	if v := g.leader().Voters(); len(v) != 3 {
		t.Errorf("with four members there are %d voters, want 3", len(v))
	}
	fourth.write("from the learner")
	if err := fourth.ReadIndex(t.Context()); err != nil {
		t.Errorf("ReadIndex on a learner: %v", err)
	}
	fifth := g.add(0, joiner).start()
	eventually(t, "five voters", func() bool { return len(g.leader().Voters()) == 5 })
	g.leader().write("five")
	g.converge()

	for _, n := range []*node{fifth, fourth} {
		if err := n.Leave(t.Context()); err != nil {
			t.Fatalf("%s leaves: %v", n.cfg.Name, err)
		}
		if err := n.end(); err != nil {
			t.Errorf("%s left and ended with %v", n.cfg.Name, err)
		}
	}
	g.nodes = g.nodes[:3]
	eventually(t, "three members", func() bool { return len(g.leader().Status().Members) == 3 })
	g.leader().write("three again")
	g.converge()
}

func TestTheLeaderLeaves(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	leader := g.leader()
	leader.write("before")
	if err := leader.Leave(t.Context()); err != nil {
		t.Fatalf("Leave: %v", err)
	}
	if err := leader.end(); err != nil {
		t.Errorf("the node that left ended with %v", err)
	}
	g.nodes = g.others(leader)
	g.leader().write("after")
	g.converge()
}

func TestMovedNodeKeepsItsPlace(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	n := g.follower()
	n.write("before")
	id := n.ID()
	n.stop()
	n.cfg.Addrs.Peer, n.cfg.Addrs.Gossip = freeAddr(t), freeAddr(t)
	n.cfg.Join = []string{g.others(n)[0].cfg.Addrs.Gossip}
	n.start()
	eventually(t, "the new address in the configuration", func() bool {
		for _, m := range g.leader(g.others(n)...).Status().Members {
			if m.ID == id {
				return m.PeerAddr == n.PeerAddr()
			}
		}
		return false
	})
	n.write("after")
	g.converge()
	if v := n.Voters(); len(v) != 3 {
		t.Errorf("%d voters, want 3", len(v))
	}
}

func TestMovedLeaderCorrectsItsOwnAddress(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1).start()
	n := g.leader()
	n.write("before")
	n.stop()
	n.cfg.Addrs.Peer, n.cfg.Addrs.Gossip = freeAddr(t), freeAddr(t)
	n.start()
	eventually(t, "its own new address", func() bool {
		m := g.leader().Status().Members
		return len(m) == 1 && m[0].PeerAddr == n.PeerAddr()
	})
	n.write("after")
}

func TestTwoClustersKeepApart(t *testing.T) {
	t.Parallel()
	a, b := newGroup(t, 1).start(), newGroup(t, 1).start()
	na, nb := a.leader(), b.leader()
	na.write("a")
	nb.write("b")
	for _, n := range []*node{na, nb} {
		eventually(t, "a cluster id on disk", func() bool { return n.log.count("part of a cluster") > 0 })
	}
	na.stop()
	na.cfg.Join = []string{nb.cfg.Addrs.Gossip}
	na.start()
	eventually(t, "a complaint", func() bool {
		return na.log.count("another cluster")+nb.log.count("another cluster") > 0
	})
	a.leader().write("a2")
	b.leader().write("b2")
	for _, n := range []*node{na, nb} {
		if got := n.log.count("another cluster has found its way"); got > 1 {
			t.Errorf("%s complained %d times", n.cfg.Name, got)
		}
		if m := n.Status().Members; len(m) != 1 {
			t.Errorf("a cluster of one shows %d members", len(m))
		}
	}
	ids := []string{na.ClusterID(), nb.ClusterID()}
	for _, id := range ids {
		if na.log.count(id)*nb.log.count(id) == 0 && na.log.count(id)+nb.log.count(id) < 2 {
			t.Errorf("the complaint does not name %s", id)
		}
	}
}
