package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/muster-registry/muster/cluster"
	"github.com/muster-registry/muster/cluster/logstore"
	"github.com/muster-registry/muster/cluster/peer"
)

// TestMain checks for leaks. memberlist does not wait for a probe that is under way
// when it is shut down: that ends by itself within a probe interval, or several where
// the machine was slow.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// patience is how long a test waits for a state before it gives up.
const patience = 90 * time.Second

// node is one node of a test, which can be started more than once.
type node struct {
	t      testing.TB
	cfg    cluster.Config
	faults cluster.Faults
	log    *lines
	gate   func(what string)   // of its machine
	known  uint64              // the feature level of its build; 0 is the first
	setUp  func(*cluster.Node) // called between New and Run

	registry *prometheus.Registry

	*cluster.Node
	machine *machine
	cancel  context.CancelFunc
	ended   chan struct{} // closed once Run has returned err
	err     error
}

// start starts the node, in the directory and at the addresses of the last time.
func (n *node) start() *node {
	n.t.Helper()
	if err := n.tryStart(); err != nil {
		n.t.Fatalf("starting %s: %v", n.cfg.Name, err)
	}
	return n
}

func (n *node) tryStart() error {
	n.machine = newMachine()
	n.machine.known, n.machine.gate = n.known, n.gate
	made, err := cluster.New(n.cfg, cluster.Deps{
		FSM: n.machine, Registerer: n.registry, Faults: &n.faults,
		Logger: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return err
	}
	n.Node = made
	n.cfg.Addrs.Peer, n.cfg.Addrs.Gossip = made.PeerAddr(), made.GossipAddr()
	if n.setUp != nil {
		n.setUp(made)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	n.cancel, n.ended = cancel, ended
	go func() {
		defer close(ended)
		n.err = made.Run(ctx)
	}()
	return nil
}

// stop ends the node as an operator would; kill as a crash would.
func (n *node) stop() error {
	n.cancel()
	<-n.ended
	return n.err
}

func (n *node) kill() {
	n.Kill()
	<-n.ended
	n.cancel()
}

// end is the error of a node that ends by itself.
func (n *node) end() error {
	n.t.Helper()
	select {
	case <-n.ended:
	case <-time.After(patience):
		n.t.Fatalf("%s still runs", n.cfg.Name)
	}
	n.cancel()
	return n.err
}

func (n *node) wipe() {
	n.t.Helper()
	if err := os.RemoveAll(n.cfg.DataDir); err != nil {
		n.t.Fatal(err)
	}
}

// lines is where a node logs to; shown when a test fails.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.buf.Bytes(), []byte(text))
}

// group is some nodes on one network.
type group struct {
	t     testing.TB
	links *peer.Links
	nodes []*node
}

// newGroup makes nodes that are to found one cluster; it starts none.
func newGroup(t testing.TB, size int, change ...func(*node)) *group {
	t.Helper()
	g := &group{t: t, links: &peer.Links{}}
	for range size {
		g.add(size, change...)
	}
	t.Cleanup(func() {
		for _, n := range g.nodes {
			if n.cancel != nil {
				n.faults.Log.Release()
				n.stop()
			}
			if t.Failed() && os.Getenv("CLUSTER_TEST_LOG") != "" {
				t.Logf("log of %s (%s):\n%s", n.cfg.Name, n.cfg.DataDir, n.log.buf.String())
			}
		}
	})
	return g
}

func (g *group) add(expect int, change ...func(*node)) *node {
	n := &node{
		t: g.t, log: &lines{}, registry: prometheus.NewRegistry(),
		cfg: cluster.Config{
			DataDir: g.t.TempDir() + "/data", Name: fmt.Sprintf("n%d", len(g.nodes)), BootstrapExpect: expect, Timing: cluster.Timing{Profile: cluster.ProfileFast},
			Addrs: cluster.Addrs{API: fmt.Sprintf("127.0.0.1:%d", 7400+10*len(g.nodes)), Peer: freeAddr(g.t), Gossip: freeAddr(g.t)},
		},
		faults: cluster.Faults{Log: &logstore.Faults{}, Links: g.links, Stabilise: 300 * time.Millisecond},
	}
	for _, c := range change {
		c(n)
	}
	g.nodes = append(g.nodes, n)
	return n
}

// freeAddr finds a free port below those the kernel takes for outgoing connections,
// so that a node that is started again finds it still free.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", addr)
		tcp.Close()
		if err == nil {
			udp.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// start starts all nodes, each of which is told of the first.
func (g *group) start() *group {
	g.t.Helper()
	for i, n := range g.nodes {
		if i > 0 && len(n.cfg.Join) == 0 {
			n.cfg.Join = []string{g.nodes[0].cfg.Addrs.Gossip}
		}
		n.start()
	}
	return g
}

// leader waits until one of the nodes leads and all the others know it.
func (g *group) leader(among ...*node) *node {
	g.t.Helper()
	if len(among) == 0 {
		among = g.nodes
	}
	var leader *node
	eventually(g.t, "a leader that all know", func() bool {
		leader = nil
		for _, n := range among {
			if _, _, ok := n.Session(); ok {
				leader = n
			}
		}
		if leader == nil {
			return false
		}
		return !slices.ContainsFunc(among, func(n *node) bool {
			id, _ := n.Node.Leader()
			return id != leader.ID()
		})
	})
	return leader
}

// follower returns a node that does not lead.
func (g *group) follower() *node {
	g.t.Helper()
	return g.others(g.leader())[0]
}

func (g *group) others(but *node) []*node {
	return slices.DeleteFunc(slices.Clone(g.nodes), func(n *node) bool { return n == but })
}

// isolate cuts a node off from all others; heal undoes it.
func (g *group) isolate(n *node) {
	g.links.Isolate(n.PeerAddr())
	g.links.Isolate(n.GossipAddr())
}

// eventually waits for a state.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for %s", patience, what)
		}
		<-time.NewTimer(10 * time.Millisecond).C
	}
}

// write has one write applied, maybe more than once: on a busy machine a leader may
// stumble.
func (n *node) write(text string) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("%q to be written on %s", text, n.cfg.Name), func() bool { return n.tryWrite(n.t.Context(), text) == nil })
}

func (n *node) tryWrite(ctx context.Context, text string) error {
	out := n.Propose(ctx, [][]byte{append([]byte{opWrite}, text...)})
	if out[0].Err == nil && (len(out[0].Result) < 8 || string(out[0].Result[8:]) != text) {
		return fmt.Errorf("the result of writing %q is %q", text, out[0].Result)
	}
	return out[0].Err
}

// converge waits until all nodes have the same writes as the first.
func (g *group) converge(among ...*node) []string {
	g.t.Helper()
	if len(among) == 0 {
		among = g.nodes
	}
	var want []string
	eventually(g.t, "the same state everywhere", func() bool {
		want = among[0].machine.writes()
		return !slices.ContainsFunc(among, func(n *node) bool { return !slices.Equal(n.machine.writes(), want) })
	})
	return want
}

func exitCode(err error) int {
	var e interface{ ExitCode() int }
	if !errors.As(err, &e) {
		return -1
	}
	return e.ExitCode()
}
