package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/logstore"
	"github.com/muster-registry/muster/cluster/peer"
)

// Node is one member of a cluster.
type Node struct {
	cfg     Config
	timing  timing
	id      string
	nonce   uint64 // made anew at each start: tells two copies of one identity apart
	apiAddr string
	logger  *slog.Logger
	fsm     StateMachine
	metrics *metrics
	made    *registrations // nil without a registerer

	dir    *dataDir
	store  *logstore.Store
	snaps  *raft.FileSnapshotStore
	port   *peer.Port
	gossip *gossip
	raft   atomic.Pointer[raft.Raft] // nil until Run has started it
	nudges *nudger

	startup startup

	space       *space
	queue       *opQueue
	routes      routes
	local       atomic.Int64 // entries on their way through raft
	holding     atomic.Bool  // nothing is given to raft: leadership is being handed over
	pausedUntil atomic.Int64 // unix nanoseconds
	lastStamp   atomic.Int64 // unix milliseconds
	transfer    transferWatch

	session     atomic.Pointer[session] // nil: none is open
	callbacks   []*callback
	readIndexes *rounds[uint64]
	fresh       freshness
	freshAsks   *rounds[struct{}]
	strictAsks  *rounds[struct{}]

	seen      seenPeers
	book      book
	reconcile chan struct{} // of size 1: something changed for the reconciler
	hadState  bool          // at the start
	cluster   atomic.Pointer[string]

	ran     atomic.Bool
	stops   atomic.Bool   // Run's context is done
	leaving atomic.Bool   // deliberately, for good
	killed  atomic.Bool   // by Kill
	failed  chan struct{} // closed by fail
	ended   chan struct{} // closed when nothing is to be waited for any more
	failure struct {
		once sync.Once
		err  error // set before failed is closed
	}
	loops   sync.WaitGroup // the node's own goroutines
	parts   sync.WaitGroup // the parts below raft: port, transport, log
	futures sync.WaitGroup // those that wait for raft, which may leave them waiting
}

// New opens the data directory, which it holds until Run has returned or Close is
// called, and binds the peer and gossip addresses. It starts nothing.
func New(cfg Config, deps Deps) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if deps.FSM == nil {
		return nil, errors.New("cluster: no state machine given")
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Faults == nil {
		deps.Faults = &Faults{}
	}
	n := &Node{
		cfg: cfg, timing: cfg.timing(deps.Faults), logger: deps.Logger, fsm: deps.FSM, nonce: randomNonce(),
		apiAddr: cfg.Addrs.advertised(cfg.Addrs.API), queue: newOpQueue(), space: newSpace(cfg.MinFreePercent, deps.Faults),
		startup:   startup{logger: deps.Logger, began: time.Now(), now: muster.Startup{Stage: "opening the data directory"}},
		reconcile: make(chan struct{}, 1), failed: make(chan struct{}), ended: make(chan struct{}),
	}
	if deps.Registerer != nil {
		n.made = &registrations{Registerer: deps.Registerer}
		deps.Registerer = n.made
	}
	n.readIndexes = newRounds(n.askReadIndex)
	n.freshAsks = newRounds(func(ctx context.Context) (struct{}, error) { return n.askFresh(ctx, false) })
	n.strictAsks = newRounds(func(ctx context.Context) (struct{}, error) { return n.askFresh(ctx, true) })
	if err := n.open(deps); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.handleCalls()
	return n, nil
}

// open takes what has to be given back by Close.
func (n *Node) open(deps Deps) (err error) {
	if n.dir, err = openDataDir(n.cfg.DataDir, n.fsm.KnownLevel()); err != nil {
		return err
	}
	id := n.dir.identity()
	n.id = id.ID
	n.cluster.Store(&id.ClusterID)
	if n.cfg.Name == "" {
		n.cfg.Name = n.id
	}
	if err = n.openStores(deps); err != nil {
		return err
	}
	n.port, err = peer.New(peer.Config{
		Bind: n.cfg.Addrs.Peer, Advertise: n.cfg.Addrs.Advertise,
		Self: n.hello, Admit: n.admit, Keys: n.cfg.Keys, Logger: n.logger, Registerer: deps.Registerer, Links: deps.Faults.Links,
	})
	if err != nil {
		return exitErrorf(exitConfig, "opening the peer port %s: %w", n.cfg.Addrs.Peer, err)
	}
	if ip := net.ParseIP(hostOf(n.port.Advertised())); ip != nil && ip.IsUnspecified() {
		return exitErrorf(exitConfig, "%s is no address others can reach: set --advertise", n.port.Advertised())
	}
	gnet, err := bindGossip(n.cfg.Addrs.Gossip, deps.Faults.Links, n.logger)
	if err != nil {
		return exitErrorf(exitConfig, "opening the gossip port %s: %w", n.cfg.Addrs.Gossip, err)
	}
	n.gossip = newGossip(n.id, n.cfg.ClusterName, gnet, n.logger)
	n.gossip.keys, n.gossip.self = n.cfg.Keys, n.meta
	n.gossip.foreign = n.noteForeign
	n.metrics, err = newMetrics(deps.Registerer, n)
	n.nudges = newNudger(n.lastIndex, n.metrics.nudges)
	return err
}

func (n *Node) openStores(deps Deps) (err error) {
	n.snaps, err = raft.NewFileSnapshotStoreWithLogger(n.dir.path, retainSnapshots, newRaftLogger(n.logger))
	if err != nil {
		return exitErrorf(exitIO, "opening the snapshots: %w", err)
	}
	n.store, err = logstore.Open(n.dir.file(logFile), logstore.Config{
		Logger: n.logger, Registerer: deps.Registerer, KeepFrom: n.oldestSnapshot, Fatal: n.fail, Faults: deps.Faults.Log,
	})
	if err != nil {
		return err
	}
	n.hadState, err = raft.HasExistingState(n.store, n.store, n.snaps)
	if err != nil {
		return exitErrorf(exitIO, "reading the log: %w", err)
	}
	return nil
}

// oldestSnapshot is the index from which the log is kept, so that the older
// snapshot can stand in for a damaged newer one.
func (n *Node) oldestSnapshot() uint64 {
	list, err := n.snaps.List()
	if err != nil || len(list) == 0 {
		return 0
	}
	return list[len(list)-1].Index
}

// Close gives back what New took. It is only for a node that is never run: Run
// does the same when it returns.
func (n *Node) Close() error {
	if n.ran.Swap(true) {
		return nil
	}
	close(n.ended)
	return n.release()
}

func (n *Node) release() (err error) {
	n.made.undo()
	if n.port != nil {
		err = n.port.Close()
	}
	if n.gossip != nil {
		err = errors.Join(err, n.gossip.net.Shutdown())
	}
	if n.store != nil {
		err = errors.Join(err, n.store.Close())
	}
	if n.dir != nil {
		err = errors.Join(err, n.dir.close())
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// fail ends the node: Run returns the first error fail was given.
func (n *Node) fail(err error) {
	n.failure.once.Do(func() {
		n.failure.err = err
		close(n.failed)
	})
}

// stopping reports whether the node is on its way out.
func (n *Node) stopping() bool { return n.stops.Load() }

// ID is the node's id, made inside its data directory.
func (n *Node) ID() string { return n.id }

// PeerAddr is the address others reach the peer port at.
func (n *Node) PeerAddr() string { return n.port.Advertised() }

// GossipAddr is the address to give to other nodes as one to join.
func (n *Node) GossipAddr() string { return n.gossip.net.self() }

// ClusterID is the id of the cluster, "" until the node has heard it.
func (n *Node) ClusterID() string {
	if id := n.fsm.ClusterID(); id != "" {
		return id
	}
	return *n.cluster.Load()
}

// CurrentTerm is raft's current term, 0 before raft has started.
func (n *Node) CurrentTerm() uint64 {
	if r := n.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// servers is the newest configuration this node knows.
func (n *Node) servers() []raft.Server {
	if r := n.raft.Load(); r != nil {
		return r.GetConfiguration().Configuration().Servers
	}
	return nil
}

func (n *Node) voters() []raft.Server {
	var out []raft.Server
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			out = append(out, s)
		}
	}
	return out
}

// Voters are the ids of the members that vote, in the newest configuration this
// node knows.
func (n *Node) Voters() []string {
	var ids []string
	for _, s := range n.voters() {
		ids = append(ids, string(s.ID))
	}
	return ids
}

// raftLeader is the leader as raft knows it; "" if it knows none.
func (n *Node) raftLeader() (id, addr string) {
	r := n.raft.Load()
	if r == nil {
		return "", ""
	}
	a, i := r.LeaderWithID()
	return string(i), string(a)
}

// Leader is the leader this node knows, and the address of its HTTP API where that
// is known too. Both are "" where no leader is known.
func (n *Node) Leader() (id, apiAddr string) {
	id, _ = n.raftLeader()
	switch {
	case id == "":
		return "", ""
	case id == n.id:
		return id, n.apiAddr
	}
	n.gossip.mu.Lock()
	if m := n.gossip.nodes[id]; m != nil {
		apiAddr = m.APIAddr
	}
	n.gossip.mu.Unlock()
	if apiAddr == "" {
		apiAddr = n.book.apiOf(id)
	}
	return id, apiAddr
}

func randomNonce() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// stuckTransfer is how often over the election timeout raft may refuse to work
// because it hands leadership over; it has a bug by which that never ends.
const stuckTransfer = 3

// transferWatch notices a hand-over of leadership that does not end.
type transferWatch struct {
	since atomic.Int64 // unix nanoseconds of the first refusal in a row; 0: none
}

func (t *transferWatch) progressed() { t.since.Store(0) }

// noteTransfer is called when raft refused an entry because it hands leadership over.
func (n *Node) noteTransfer() {
	now := time.Now().UnixNano()
	if n.transfer.since.CompareAndSwap(0, now) {
		return
	}
	since := time.Duration(now - n.transfer.since.Load())
	if r := n.raft.Load(); since > stuckTransfer*n.timing.heartbeat && r.State() == raft.Leader {
		n.fail(exitErrorf(1, "leadership has been on its way to another node for %s without arriving: restart the node", since.Round(time.Millisecond)))
	}
}
