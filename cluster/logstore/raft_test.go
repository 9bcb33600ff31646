package logstore_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/cluster/logstore"
)

// node is one raft node on a Store.
type node struct {
	store  *logstore.Store
	raft   *raft.Raft
	faults *logstore.Faults
	gaveUp *fatal
}

func raftConfig(id raft.ServerID) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = id
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 100*time.Millisecond, 100*time.Millisecond, 80*time.Millisecond
	c.Logger = hclog.NewNullLogger()
	return c
}

func startRaft(t *testing.T, trans *raft.InmemTransport, servers []raft.Server, i int, prepare func(*logstore.Faults)) *node {
	t.Helper()
	n := &node{faults: &logstore.Faults{}, gaveUp: newFatal()}
	n.store = open(t, logPath(t), logstore.Config{Faults: n.faults, Fatal: n.gaveUp.call})
	snaps := raft.NewInmemSnapshotStore()
	cfg := raftConfig(servers[i].ID)
	if err := raft.BootstrapCluster(cfg, n.store, n.store, snaps, trans, raft.Configuration{Servers: servers}); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.raft, err = raft.NewRaft(cfg, &raft.MockFSM{}, n.store, n.store, snaps, trans); err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(n.faults)
	}
	run(t, n.store)
	return n
}

// stop ends a node the way a node that must stop does: the store first.
func (n *node) stop(t *testing.T) {
	t.Helper()
	future := n.raft.Shutdown()
	if err := n.store.Close(); err != nil {
		t.Error(err)
	}
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("raft does not end after the store was closed")
	}
}

func threeNodes(t *testing.T) []*node {
	t.Helper()
	var servers []raft.Server
	var transports []*raft.InmemTransport
	for _, id := range []string{"a", "b", "c"} {
		addr, trans := raft.NewInmemTransport(raft.ServerAddress(id))
		transports = append(transports, trans)
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: addr})
	}
	for i, x := range transports {
		for j, y := range transports {
			if i != j {
				x.Connect(servers[j].Address, y)
			}
		}
	}
	var nodes []*node
	for i, trans := range transports {
		nodes = append(nodes, startRaft(t, trans, servers, i, nil))
	}
	return nodes
}

func leaderOf(t *testing.T, nodes []*node) *node {
	t.Helper()
	var leader *node
	until(t, "there is a leader", func() bool {
		for _, n := range nodes {
			if n.raft.State() == raft.Leader && n.raft.Apply([]byte("hello"), time.Second).Error() == nil {
				leader = n
			}
		}
		return leader != nil
	})
	return leader
}

// TestDamageUnderRaft: a follower finds a damaged entry when it applies it, on
// raft's main goroutine, and the node ends without a panic.
func TestDamageUnderRaft(t *testing.T) {
	nodes := threeNodes(t)
	leader := leaderOf(t, nodes)
	victim := nodes[0]
	if victim == leader {
		victim = nodes[1]
	}
	next := leader.raft.LastIndex() + 1
	victim.faults.BadRead(next)
	if err := leader.raft.Apply([]byte("damaged on the victim"), time.Second).Error(); err != nil {
		t.Fatalf("the cluster does not do without the victim: %v", err)
	}
	wantCorrupt(t, victim.gaveUp.wait(t), next)
	victim.stop(t)
	if err := leader.raft.Apply([]byte("after"), time.Second).Error(); err != nil {
		t.Fatalf("the cluster does not do without the victim: %v", err)
	}
	for _, n := range nodes {
		if n != victim {
			n.stop(t)
		}
	}
}

// TestAFailedTermUnderRaft: raft panics when it cannot keep its term.
func TestAFailedTermUnderRaft(t *testing.T) {
	addr, trans := raft.NewInmemTransport("a")
	n := startRaft(t, trans, []raft.Server{{ID: "a", Address: addr}}, 0, func(f *logstore.Faults) { f.FailNext(syscall.EIO) })
	err := n.gaveUp.wait(t)
	wantExit(t, err, logstore.ExitIO)
	n.stop(t)
}

// TestAHungLeaderUnderRaft: the others elect a new leader once the hung one is
// given up, and the hung entry is not in its log.
func TestAHungLeaderUnderRaft(t *testing.T) {
	nodes := threeNodes(t)
	leader := leaderOf(t, nodes)
	last := leader.raft.LastIndex()
	leader.faults.Hang()
	applied := leader.raft.Apply([]byte("never stored"), time.Second)
	until(t, "the write hangs", func() bool { return leader.store.Hung() > 0 })
	leader.stop(t)
	if err := applied.Error(); err == nil {
		t.Error("the hung entry was acknowledged")
	}
	var rest []*node
	for _, n := range nodes {
		if n != leader {
			rest = append(rest, n)
		}
	}
	if got := leaderOf(t, rest).raft.LastIndex(); got <= last {
		t.Errorf("the new leader's log ends at %d, want beyond %d", got, last)
	}
	for _, n := range rest {
		n.stop(t)
	}
}
