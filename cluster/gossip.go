package cluster

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxPacket is what SendGossip takes: it fits an Ethernet frame with all headers.
	maxPacket      = 1200
	packetQueue    = 256
	gossipLeave    = 500 * time.Millisecond
	gossipUpdate   = time.Second
	gossipStreamIO = 5 * time.Second
	deadReclaim    = 10 * time.Second
)

// gossiped is what gossip says of a node.
type gossiped struct {
	meta
	ID    string
	Addr  string // its gossip address
	Alive bool
	Since time.Time // when it was found alive, or dead
}

// gossip wraps memberlist. Its delegates run under memberlist's own lock, so they
// only copy, and wake whoever looks at the copies. memberlist's list of members is
// never asked: its nodes change under the reader's hands.
type gossip struct {
	id     string
	label  string
	logger *slog.Logger
	net    *gossipNet
	keys   [][]byte    // the first is used; none: nothing is encrypted
	self   func() meta // what to say of this node now
	dirty  chan struct{}
	// foreign is told of the cluster ids of nodes that are not ours.
	foreign func(node, clusterID, addr string)

	list    *memberlist.Memberlist // set by start
	packets chan userPacket

	mu        sync.Mutex
	nodes     map[string]*gossiped                      // guarded by mu
	handlers  map[byte]func(from string, packet []byte) // guarded by mu
	conflicts map[string]time.Time                      // guarded by mu: when a double was last complained of
	started   atomic.Bool
}

const conflictEvery = time.Minute

type userPacket struct {
	kind byte
	from string
	body []byte
}

func newGossip(id, label string, net *gossipNet, logger *slog.Logger) *gossip {
	return &gossip{
		id: id, label: label, logger: logger, net: net,
		dirty: make(chan struct{}, 1), packets: make(chan userPacket, packetQueue),
		nodes: make(map[string]*gossiped), handlers: make(map[byte]func(string, []byte)), conflicts: make(map[string]time.Time),
	}
}

// start begins to gossip, alone for the time being.
func (g *gossip) start() error {
	g.net.start()
	c := memberlist.DefaultLANConfig()
	c.Name = g.id
	c.Label = g.label
	c.Transport = g.net
	c.TCPTimeout = gossipStreamIO
	c.DeadNodeReclaimTime = deadReclaim
	c.EnableCompression = false
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = g, g, g, g, g
	c.Logger = log.New(&keyTeller{lineWriter: lineWriter{g.logger, "memberlist says"}}, "", 0)
	if len(g.keys) > 0 {
		ring, err := memberlist.NewKeyring(g.keys, g.keys[0])
		if err != nil {
			g.net.Shutdown()
			return fmt.Errorf("the cluster key: %w", err)
		}
		c.Keyring = ring
	}
	list, err := memberlist.Create(c)
	if err != nil {
		g.net.Shutdown()
		return fmt.Errorf("starting the gossip: %w", err)
	}
	g.list = list
	g.started.Store(true)
	return nil
}

// stop ends the gossip. Peers are told that the node is gone for now, which says
// nothing about its membership: only the leaving flag does. A crash tells nobody.
func (g *gossip) stop(crash bool) {
	if !g.started.Swap(false) {
		g.net.Shutdown()
		return
	}
	if !crash {
		if err := g.list.Leave(gossipLeave); err != nil {
			g.logger.Debug("peers may not know that this node stops", "err", err)
		}
	}
	g.list.Shutdown()
}

// announce tells the others what self says now.
func (g *gossip) announce() {
	if !g.started.Load() {
		return
	}
	if err := g.list.UpdateNode(gossipUpdate); err != nil {
		g.logger.Debug("metadata not spread yet", "err", err)
	}
}

// members returns a copy of what is known, this node included.
func (g *gossip) members() map[string]gossiped {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[string]gossiped, len(g.nodes))
	for id, n := range g.nodes {
		out[id] = *n
	}
	return out
}

// alive is the number of nodes found alive, this one included.
func (g *gossip) alive() int {
	n := 0
	for _, m := range g.members() {
		if m.Alive {
			n++
		}
	}
	return n
}

// health is memberlist's opinion of this node itself: 0 is well, higher is slower
// than its peers expect.
func (g *gossip) health() int {
	if !g.started.Load() {
		return 0
	}
	return g.list.GetHealthScore()
}

// forget drops nodes that are dead for longer than d and that keep does not want.
func (g *gossip) forget(d time.Duration, keep func(id string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.nodes, func(id string, n *gossiped) bool {
		return !n.Alive && time.Since(n.Since) > d && !keep(id)
	})
}

func (g *gossip) note(n *memberlist.Node, alive bool) {
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return // NotifyAlive has let through only what decodes
	}
	now := time.Now()
	g.mu.Lock()
	old := g.nodes[n.Name]
	if old != nil && old.Alive == alive {
		now = old.Since
	}
	g.nodes[n.Name] = &gossiped{
		meta: m, ID: n.Name, Alive: alive, Since: now,
		Addr: net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port))),
	}
	g.mu.Unlock()
	poke(g.dirty)
}

// NotifyJoin implements memberlist.EventDelegate.
func (g *gossip) NotifyJoin(n *memberlist.Node) { g.note(n, true) }

// NotifyUpdate implements memberlist.EventDelegate.
func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.note(n, true) }

// NotifyLeave implements memberlist.EventDelegate. It cannot tell leaving from
// dying, and nothing here needs it to.
func (g *gossip) NotifyLeave(n *memberlist.Node) { g.note(n, false) }

// NotifyAlive implements memberlist.AliveDelegate: what it refuses is no peer.
func (g *gossip) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return err
	}
	return g.sameCluster(n, m)
}

// NotifyMerge implements memberlist.MergeDelegate: it refuses to exchange state
// with another cluster as a whole.
func (g *gossip) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if m, err := decodeMeta(n.Meta); err == nil {
			if err := g.sameCluster(n, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *gossip) sameCluster(n *memberlist.Node, m meta) error {
	own := g.self().ClusterID
	if own == "" || m.ClusterID == "" || own == m.ClusterID {
		return nil
	}
	g.foreign(n.Name, m.ClusterID, m.PeerAddr)
	return fmt.Errorf("node %s belongs to cluster %s, this one to %s", n.Name, m.ClusterID, own)
}

// NotifyConflict implements memberlist.ConflictDelegate.
func (g *gossip) NotifyConflict(existing, other *memberlist.Node) {
	g.mu.Lock()
	told := time.Since(g.conflicts[existing.Name]) < conflictEvery
	if !told {
		g.conflicts[existing.Name] = time.Now()
	}
	g.mu.Unlock()
	if told {
		return
	}
	g.logger.Error("two nodes have the same id: one of them runs on a copy of the other's data directory, wipe the copy",
		"node", existing.Name, "addr", existing.Address(), "other_addr", other.Address())
}

// NodeMeta implements memberlist.Delegate.
func (g *gossip) NodeMeta(limit int) []byte { return g.self().encode(limit) }

// GetBroadcasts implements memberlist.Delegate.
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (g *gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (g *gossip) MergeRemoteState([]byte, bool) {}

// NotifyMsg implements memberlist.Delegate: a packet of another room. memberlist
// does not say from whom it came, so the packet does. Where the rooms are slow
// packets are dropped, as they might have been on the way.
func (g *gossip) NotifyMsg(b []byte) {
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return
	}
	p := userPacket{kind: b[0], from: string(b[2 : 2+b[1]]), body: bytes.Clone(b[2+int(b[1]):])}
	select {
	case g.packets <- p:
	default:
	}
}

// send passes a packet to a member, if it is known to be alive.
func (g *gossip) send(kind byte, id string, body []byte) {
	g.mu.Lock()
	to := g.nodes[id]
	ok := to != nil && to.Alive
	addr := ""
	if ok {
		addr = to.Addr
	}
	g.mu.Unlock()
	if !ok || !g.started.Load() || len(body) > maxPacket {
		return
	}
	b := make([]byte, 0, 2+len(g.id)+len(body))
	b = append(append(append(b, kind, byte(len(g.id))), g.id...), body...)
	if err := g.list.SendToAddress(memberlist.Address{Addr: addr, Name: id}, b); err != nil {
		g.logger.Debug("packet not sent", "node", id, "err", err)
	}
}

// deliver hands packets to the rooms, one after the other.
func (g *gossip) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-g.packets:
			g.mu.Lock()
			fn := g.handlers[p.kind]
			g.mu.Unlock()
			if fn != nil {
				fn(p.from, p.body)
			}
		}
	}
}

// OnGossip has fn called with each packet of that kind that a member sent, one
// after the other on one goroutine: fn must not wait for anything. from is what
// the packet says; it is not proven.
func (n *Node) OnGossip(kind byte, fn func(from string, packet []byte)) {
	n.gossip.mu.Lock()
	defer n.gossip.mu.Unlock()
	n.gossip.handlers[kind] = fn
}

// SendGossip sends a packet of at most 1200 bytes to a member. It may be lost,
// doubled, or overtaken by a later one.
func (n *Node) SendGossip(kind byte, memberID string, packet []byte) {
	n.gossip.send(kind, memberID, packet)
}
