package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ClusterConfig says how a Cluster is made.
type ClusterConfig struct {
	Dir    string // takes logs and data
	Binary string // muster, built with the tag "faults"
	Nodes  int    // that found it, 3 or 5
	Spare  int    // more places, for nodes that join later
	// SmallDisk gives the last of the founders a disk of that many bytes, where that
	// can be done; 0: none.
	SmallDisk int64
	// Args are more flags of every node.
	Args []string
	// Broken is told of what no fault excuses, from any goroutine.
	Broken func(format string, args ...any)
}

// Cluster is muster processes that form one cluster, each on a host of its own if
// this machine can have such, else all on loopback. Its methods may be called
// concurrently, except Close, which is the last.
type Cluster struct {
	// NoNetwork says why the nodes have no network each; nil: they have.
	NoNetwork error
	// NoSmallDisk says why no node has a small disk; nil: the last founder has.
	NoSmallDisk error

	cfg    ClusterConfig
	net    *network // nil on loopback
	nodes  []*Node  // founders, then spares
	client *http.Client
}

// NewCluster prepares the nodes; Start starts them.
func NewCluster(cfg ClusterConfig) (c *Cluster, err error) {
	c = &Cluster{cfg: cfg, client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	if c.net, err = newNetwork(); err != nil {
		c.net, c.NoNetwork = nil, err
	}
	ports, err := freePorts(3 * (cfg.Nodes + cfg.Spare))
	if err != nil {
		return nil, err
	}
	var seeds []string
	for place := range cfg.Nodes + cfg.Spare {
		n, err := c.newNode(place, ports[3*place:])
		if err != nil {
			c.Close()
			return nil, err
		}
		c.nodes = append(c.nodes, n)
		if place < cfg.Nodes {
			seeds = append(seeds, n.args[len(n.args)-1])
		}
	}
	for place, n := range c.nodes {
		expect := cfg.Nodes
		if place >= cfg.Nodes {
			expect = 0
		}
		n.args = append(n.args, "--bootstrap-expect", strconv.Itoa(expect), "--join", strings.Join(seeds, ","))
		n.args = append(n.args, cfg.Args...)
	}
	c.NoSmallDisk = errors.New("not asked for")
	if last := c.nodes[cfg.Nodes-1]; cfg.SmallDisk > 0 {
		c.NoSmallDisk = c.NoNetwork
		if c.net != nil {
			c.NoSmallDisk = last.host.do(func() error { return smallDisk(last.dataDir(), cfg.SmallDisk) })
		}
	}
	return c, nil
}

// newNode prepares the node at that place. The last of its args is its gossip address.
func (c *Cluster) newNode(place int, ports []int) (n *Node, err error) {
	n = &Node{Name: fmt.Sprintf("n%d", place+1), binary: c.cfg.Binary, ended: c.endedAlone}
	n.dir = filepath.Join(c.cfg.Dir, n.Name)
	if err := os.MkdirAll(n.dataDir(), 0o755); err != nil {
		return nil, fmt.Errorf("making a node's folder: %w", err)
	}
	if c.net != nil {
		ports = []int{7400, 7401, 7402}
		n.host, err = c.net.add(n.Name, byte(place+1))
	} else {
		n.host, err = newHost(n.Name, "127.0.0.1", nil)
	}
	if err != nil {
		return nil, err
	}
	at := func(p int) string { return net.JoinHostPort(n.host.addr, strconv.Itoa(p)) }
	n.URL = "http://" + at(ports[0])
	// See fault.EnvDisk and fault.EnvSnapshots, which only a build with faults has.
	n.env = []string{"MUSTER_FAULT_DISK=" + n.diskFile(), "MUSTER_FAULT_SNAPSHOTS=" + snapshots}
	n.args = []string{"server", "--name", n.Name, "--data-dir", n.dataDir(), "--insecure", "--log-level", "debug", "--api-addr", at(ports[0]), "--peer-addr", at(ports[1]), "--gossip-addr", at(ports[2])}
	return n, nil
}

// freePorts finds loopback ports that are free for TCP and UDP, below those that
// systems give to outgoing connections, one of which could otherwise take the port of
// a node that is down.
func freePorts(n int) (ports []int, err error) {
	var held []io.Closer
	defer func() {
		for _, h := range held {
			_ = h.Close()
		}
	}()
	for range 10_000 {
		if len(ports) == n {
			return ports, nil
		}
		port := 20_000 + rand.IntN(12_000)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue // in use
		}
		held = append(held, l)
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		held = append(held, u)
		ports = append(ports, port)
	}
	return nil, errors.New("too few free ports on loopback")
}

// endedAlone is told of a process that ended although nobody asked for it.
func (c *Cluster) endedAlone(n *Node, code int) {
	c.cfg.Broken("%s ended by itself with code %d; the end of its log:\n%s", n.Name, code, tail(n.said(0), 12))
}

// Start starts the founders and waits until all are ready.
func (c *Cluster) Start(ctx context.Context) error {
	for _, n := range c.Nodes() {
		if err := n.Start(); err != nil {
			return err
		}
	}
	_, err := c.WaitWhole(ctx, c.cfg.Nodes)
	return err
}

// Nodes are the founders, in order; Spares the other places.
func (c *Cluster) Nodes() []*Node { return c.nodes[:c.cfg.Nodes] }

// Spares are the places of nodes that may join.
func (c *Cluster) Spares() []*Node { return c.nodes[c.cfg.Nodes:] }

// URLs are the API addresses of the founders, in order.
func (c *Cluster) URLs() []string {
	urls := make([]string, c.cfg.Nodes)
	for i, n := range c.Nodes() {
		urls[i] = n.URL
	}
	return urls
}

// Heal takes away all that faults have done to the network, disks and processes that
// are stopped; it starts none.
func (c *Cluster) Heal() error {
	var errs []error
	for _, n := range c.nodes {
		if c.net != nil {
			errs = append(errs, c.net.heal(n.host))
		}
		errs = append(errs, n.Disk(""), n.unfill(), n.Resume())
	}
	return errors.Join(errs...)
}

// Close ends all processes and takes the network away.
func (c *Cluster) Close() {
	for _, n := range c.nodes {
		n.Kill()
		n.host.close()
	}
	if c.net != nil {
		c.net.close()
	}
	c.client.CloseIdleConnections()
}

// Stop ends the processes the way an operator would, and reports which did not end well.
func (c *Cluster) Stop() {
	for _, n := range c.nodes {
		if !n.Alive() {
			continue
		}
		if code := n.end(syscall.SIGTERM); code != 0 {
			c.cfg.Broken("%s was told to stop and ended with code %d", n.Name, code)
		}
	}
}
