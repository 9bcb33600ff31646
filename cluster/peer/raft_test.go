package peer_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/muster-registry/muster/cluster/peer"
)

// raftNode is raft on a port, with its log in a file.
type raftNode struct {
	*node
	raft      *raft.Raft
	transport *peer.Transport
	fsm       *raft.MockFSM
	gate      atomic.Pointer[error]
	shut      func()
}

func (n *raftNode) addr() raft.ServerAddress { return raft.ServerAddress(n.Advertised()) }

// startRaft starts raft nodes named a, b, c on one network.
func startRaft(t *testing.T, links *peer.Links, ids ...string) []*raftNode {
	t.Helper()
	var nodes []*raftNode
	var servers []raft.Server
	for _, id := range ids {
		n := &raftNode{node: serve(t, newPort(t, id, peer.Config{Links: links})), fsm: &raft.MockFSM{}}
		nodes = append(nodes, n)
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: n.addr()})
	}
	for i, n := range nodes {
		n.start(t, servers, servers[i].ID)
	}
	return nodes
}

func (n *raftNode) start(t *testing.T, servers []raft.Server, id raft.ServerID) {
	t.Helper()
	store, err := raftboltdb.NewBoltStore(filepath.Join(t.TempDir(), "raft.db"))
	if err != nil {
		t.Fatal(err)
	}
	n.transport = peer.NewTransport(n.Port, peer.TransportConfig{HeartbeatGate: func() error {
		if err := n.gate.Load(); err != nil {
			return *err
		}
		return nil
	}})
	cfg := raft.DefaultConfig()
	cfg.LocalID = id
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = time.Second, time.Second, time.Second
	cfg.Logger = hclog.NewNullLogger()
	snaps := raft.NewInmemSnapshotStore()
	if err := raft.BootstrapCluster(cfg, store, store, snaps, n.transport, raft.Configuration{Servers: servers}); err != nil {
		t.Fatal(err)
	}
	if n.raft, err = raft.NewRaft(cfg, n.fsm, store, store, snaps, n.transport); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.transport.Run(ctx)
	}()
	shut := false
	n.shut = func() {
		if shut {
			return
		}
		shut = true
		if err := n.raft.Shutdown().Error(); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		n.stop()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(n.shut)
}

// leader waits until one of nodes leads and the others of nodes follow it.
func leader(t *testing.T, nodes ...*raftNode) *raftNode {
	t.Helper()
	var found *raftNode
	until(t, "there is one leader", func() bool {
		found = nil
		for _, n := range nodes {
			if n.raft.State() == raft.Leader {
				found = n
			}
		}
		for _, n := range nodes {
			if addr, _ := n.raft.LeaderWithID(); found == nil || addr != found.addr() {
				return false
			}
		}
		return true
	})
	return found
}

func apply(t *testing.T, n *raftNode, times int) {
	t.Helper()
	for range times {
		if err := n.raft.Apply(make([]byte, 300), 5*time.Second).Error(); err != nil {
			t.Fatalf("apply: %v", err)
		}
	}
}

func wantApplied(t *testing.T, count int, nodes ...*raftNode) {
	t.Helper()
	for _, n := range nodes {
		until(t, "all entries are applied", func() bool { return len(n.fsm.Logs()) == count })
	}
}

func without(nodes []*raftNode, out *raftNode) []*raftNode {
	var rest []*raftNode
	for _, n := range nodes {
		if n != out {
			rest = append(rest, n)
		}
	}
	return rest
}

func TestRaftOverThePort(t *testing.T) {
	links := &peer.Links{}
	nodes := startRaft(t, links, "a", "b", "c")
	first := leader(t, nodes...)
	apply(t, first, 20)
	wantApplied(t, 20, nodes...)

	// A follower that is cut off asks in vain for an election and, thanks to
	// pre-vote, raises no term: it comes back without unseating the leader.
	term := first.raft.CurrentTerm()
	lost := without(nodes, first)[0]
	links.Isolate(lost.Advertised())
	until(t, "the lost follower looks for a leader", func() bool { return lost.raft.State() == raft.Candidate })
	apply(t, first, 20)
	wait := time.NewTimer(3 * time.Second) // several of its election timeouts
	<-wait.C
	if got := lost.raft.CurrentTerm(); got != term {
		t.Errorf("the lost follower's term is %d, want %d as before: pre-vote is off", got, term)
	}
	links.HealAll()
	wantApplied(t, 40, nodes...)
	if again := leader(t, nodes...); again != first || again.raft.CurrentTerm() != term {
		t.Errorf("healing changed the leader or the term (%d to %d)", term, again.raft.CurrentTerm())
	}

	// A leader that is cut off is replaced, and follows when it is back.
	links.Isolate(first.Advertised())
	rest := without(nodes, first)
	second := leader(t, rest...)
	apply(t, second, 20)
	wantApplied(t, 60, rest...)
	links.HealAll()
	wantApplied(t, 60, first)
	if leader(t, nodes...) == first {
		t.Error("the old leader leads again")
	}

	// A dead one too.
	second = leader(t, nodes...)
	second.shut()
	rest = without(nodes, second)
	apply(t, leader(t, rest...), 20)
	wantApplied(t, 80, rest...)
}

func TestAGatedLeaderIsReplaced(t *testing.T) {
	nodes := startRaft(t, nil, "a", "b", "c")
	first := leader(t, nodes...)
	apply(t, first, 3)
	gate := errors.New("the disk hangs")
	first.gate.Store(&gate)
	second := leader(t, without(nodes, first)...)
	apply(t, second, 3)
	first.gate.Store(nil)
	leader(t, nodes...)
	wantApplied(t, 6, nodes...)
}

// TestInjectedTimeoutNow: the means of a fast failover.
func TestInjectedTimeoutNow(t *testing.T) {
	nodes := startRaft(t, nil, "a", "b", "c")
	first := leader(t, nodes...)
	apply(t, first, 3)
	wantApplied(t, 3, nodes...)
	heir := without(nodes, first)[0]
	answer := make(chan raft.RPCResponse, 1)
	err := heir.transport.Inject(t.Context(), raft.RPC{
		Command:  &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3}},
		RespChan: answer,
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp := <-answer; resp.Error != nil {
		t.Fatal(resp.Error)
	}
	until(t, "the heir leads", func() bool { return heir.raft.State() == raft.Leader })
	apply(t, leader(t, nodes...), 1)
	if err := heir.transport.Close(); err != nil {
		t.Fatal(err)
	}
	if err := heir.transport.Inject(t.Context(), raft.RPC{}); !errors.Is(err, raft.ErrTransportShutdown) {
		t.Errorf("Inject into a closed transport: %v", err)
	}
}

// TestAWipedNodeDoesNotAnswerForTheOneItWas: what raft sends to a server id
// never reaches another id at the same address.
func TestAWipedNodeDoesNotAnswerForTheOneItWas(t *testing.T) {
	wiped := serve(t, newPort(t, "new-id", peer.Config{}))
	asked := make(chan struct{}, 1)
	transport := peer.NewTransport(newPort(t, "candidate", peer.Config{}), peer.TransportConfig{})
	defer transport.Close()
	impostor := peer.NewTransport(wiped.Port, peer.TransportConfig{})
	defer impostor.Close()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = impostor.Run(ctx)
	}()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for {
			select {
			case rpc := <-impostor.Consumer():
				asked <- struct{}{}
				rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { cancel(); <-served; <-answered }()
	req := &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3}}
	var resp raft.RequestVoteResponse
	addr := raft.ServerAddress(wiped.Advertised())
	err := transport.RequestVote("old-id", addr, req, &resp)
	wantRefused(t, err, peer.CodeWrongNode, false)
	if len(asked) > 0 || resp.Granted {
		t.Fatal("the node under its new id was asked for the old one's vote")
	}
	if err := transport.RequestVote("new-id", addr, req, &resp); err != nil || !resp.Granted {
		t.Fatalf("the node under its own id: %v, granted: %v", err, resp.Granted)
	}
}
