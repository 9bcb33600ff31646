package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/muster-registry/muster/balancer"
	"github.com/muster-registry/muster/cluster"
	"github.com/muster-registry/muster/fault"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/health"
	"github.com/muster-registry/muster/httpapi"
	"github.com/muster-registry/muster/lease"
	"github.com/muster-registry/muster/registry"
	"github.com/muster-registry/muster/watch"
)

// exitConfig is the exit code of a configuration that cannot be used.
const exitConfig = 78

var errKilled = errors.New("killed")

// Config says how a node runs. Addresses are "host:port"; port 0 takes any.
type Config struct {
	DataDir     string
	Name        string // shown to people; the node's id when empty
	Zone        string
	Version     string // of the build
	ClusterName string // "muster" when empty
	APIAddr     string
	PeerAddr    string
	GossipAddr  string
	// Advertise is the host others reach all three ports at; empty: the bound one.
	Advertise string
	// Found says how the node finds its cluster.
	Found Found
	// RaftProfile is fast, default or slow; default when empty.
	RaftProfile string
	// MinFreePercent is how much of the data directory's file system is to stay free;
	// 0 is 10, less is no limit.
	MinFreePercent int
	// SlowFailover leaves the election after the death of a leader's process to raft's
	// timers.
	SlowFailover bool
	// Secrets are the files of the cluster key and of the API port's certificate.
	Secrets Secrets
	// Insecure allows a bind that others can reach although nothing is encrypted
	// and anybody may write.
	Insecure bool
	// StreamsPerAddress is how many streams of changes one client address may have
	// open, loopback excepted; 0 is muster.DefaultStreamsPerAddress.
	StreamsPerAddress int
	// ConnectionsPerAddress is the same of connections that carry no stream; 0 is
	// muster.DefaultConnectionsPerAddress.
	ConnectionsPerAddress int
	// Tracing makes a span of every request; the process has set OpenTelemetry up.
	Tracing bool
	// Access says which requests are logged.
	Access httpapi.Access
	// Backups says whether the node writes backups by itself.
	Backups Backups
}

// Found says how a node finds or founds its cluster.
type Found struct {
	// BootstrapExpect is how many nodes found a new cluster; 0: only join one.
	BootstrapExpect int
	// Join are gossip addresses; the node's own may be among them.
	Join []string
}

// Deps are what a node is given; all may be left out.
type Deps struct {
	Logger *slog.Logger
	// LogLevel is what GET and PUT /v1/node/log-level show and set. Where it is nil the
	// node makes one, which lets everything pass at first.
	LogLevel *LogLevel
	// Faults are the seams of tests.
	Faults *cluster.Faults
	// Listener is told what the node applies, before the node's own parts; for tests.
	Listener fsm.Listener
	// CheckFaults breaks the way from this node to the targets of its checks.
	CheckFaults *health.Faults
}

// Node is one node of a registry.
type Node struct {
	cfg     Config
	log     *slog.Logger
	state   *fsm.FSM
	cluster *cluster.Node
	keeper  *lease.Keeper
	checks  *health.Supervisor
	hub     *watch.Hub
	picks   picks
	backups *backupWriter

	transitions *transitions
	http        *httpapi.Server
	api         net.Listener
	metrics     *metrics
	// registry holds the metrics of all rooms.
	registry *prometheus.Registry
	keys     [][]byte
	fatal    chan error // of the state machine; holds the first
}

// exitError is an error that ends the process with a code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }
func (e *exitError) ExitCode() int { return e.code }

func configError(format string, args ...any) error {
	return &exitError{exitConfig, fmt.Errorf(format, args...)}
}

// New checks cfg, binds the node's ports and opens its data directory. It starts
// nothing. Its errors carry an exit code (interface{ ExitCode() int }) where the
// command line promises one.
func New(cfg Config, deps Deps) (*Node, error) {
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.LogLevel == nil {
		deps.LogLevel = NewLogLevel(slog.LevelDebug)
	}
	deps.Logger = slog.New(lines{deps.Logger.Handler(), deps.LogLevel})
	if err := checkBinds(cfg); err != nil {
		return nil, err
	}
	var err error
	if cfg.Backups, err = cfg.Backups.withDefaults(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: deps.Logger, fatal: make(chan error, 1)}
	if n.keys, err = readClusterKeys(cfg.Secrets.ClusterKeyFile, deps.Logger); err != nil {
		return nil, err
	}
	n.registry = prometheus.NewRegistry()
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if n.metrics, err = newMetrics(n.registry, cfg.Version, cfg.DataDir); err != nil {
		return nil, err
	}
	cert, err := newCertificate(cfg.Secrets, deps.Logger, n.metrics)
	if err != nil {
		return nil, err
	}
	if err := certificateExpiry(n.registry, cert); err != nil {
		return nil, err
	}
	if n.api, err = listen(cfg.APIAddr); err != nil {
		return nil, err
	}
	n.api = cert.over(n.api)
	if err := n.assemble(deps, n.registry); err != nil {
		return nil, errors.Join(err, n.api.Close())
	}
	return n, nil
}

// assemble builds the rooms from the ground up.
func (n *Node) assemble(deps Deps, metrics *prometheus.Registry) error {
	var err error
	feed, checks, news := &leaseFeed{}, &checkFeed{}, &watchFeed{}
	n.transitions = newTransitions(deps.Logger, deps.LogLevel)
	listeners := []fsm.Listener{feed, checks, news, n.transitions}
	if deps.Listener != nil {
		listeners = slices.Insert(listeners, 0, deps.Listener)
	}
	n.state, err = fsm.New(fsm.Config{Logger: deps.Logger, Registerer: metrics, Fatal: n.stopFor, Listeners: listeners})
	if err != nil {
		return fmt.Errorf("making the state machine: %w", err)
	}
	n.cluster, err = cluster.New(cluster.Config{
		DataDir: n.cfg.DataDir, Name: n.cfg.Name, Zone: n.cfg.Zone, Version: n.cfg.Version, ClusterName: n.cfg.ClusterName,
		Addrs: cluster.Addrs{
			API: n.api.Addr().String(), Peer: n.cfg.PeerAddr, Gossip: n.cfg.GossipAddr, Advertise: n.cfg.Advertise,
		},
		BootstrapExpect: n.cfg.Found.BootstrapExpect, Join: n.cfg.Found.Join,
		Timing:   cluster.Timing{Profile: cluster.Profile(n.cfg.RaftProfile), SlowFailover: n.cfg.SlowFailover},
		Insecure: n.cfg.Insecure, Keys: n.keys,
		MinFreePercent: n.cfg.MinFreePercent,
	}, cluster.Deps{FSM: n.state, Logger: deps.Logger, Registerer: metrics, Faults: deps.Faults})
	if err != nil {
		return err
	}
	n.transitions.leads = func() bool { _, _, ok := n.cluster.Session(); return ok }
	n.keeper, err = lease.New(lease.Config{}, lease.Deps{
		State: leaseState{n.state}, Log: leaseLog{n.cluster}, Raft: n.cluster, Peers: n.cluster,
		Switches: leaseSwitches{n.state}, Logger: deps.Logger, Registerer: metrics,
	})
	if err != nil {
		return err
	}
	feed.keeper = n.keeper
	n.cluster.OnSession(n.keeper.Lead)
	n.checks, err = health.New(health.Config{}, health.Deps{
		State: checkState{n.state}, Log: checkLog{n.cluster}, Raft: checkRaft{n.cluster}, Peers: n.cluster, Guard: n.guard(deps.CheckFaults),
		Dead: confirmDead(n.state, n.keeper), Logger: deps.Logger, Registerer: metrics,
	})
	if err != nil {
		return err
	}
	checks.supervisor = n.checks
	n.cluster.OnSession(n.checks.Lead)
	n.hub, err = watch.New(watchConfig(n.cfg.RaftProfile), watch.Deps{State: n.state, Cluster: n.cluster, Logger: deps.Logger, Registerer: metrics})
	if err != nil {
		return err
	}
	news.hub = n.hub
	picker, err := balancer.New(balancer.Config{Node: n.cluster.ID(), Logger: deps.Logger, Registerer: metrics})
	if err != nil {
		return err
	}
	n.picks = picks{balancer: picker, cluster: n.cluster, log: deps.Logger}
	n.picks.join()
	ready := func() bool { _, ok := n.cluster.Freshness(); return ok }
	n.backups = &backupWriter{cfg: n.cfg.Backups, id: n.cluster.ID(), state: n.state, ready: ready, log: deps.Logger, metrics: n.metrics}
	desk, err := registry.New(registry.Config{Logger: deps.Logger}, registry.Deps{State: n.state, Consensus: n.cluster, Keeper: n.keeper})
	if err != nil {
		return err
	}
	n.http, err = httpapi.New(httpapi.Config{
		Version: n.cfg.Version, StreamsPerAddress: n.cfg.StreamsPerAddress,
		ConnectionsPerAddress: n.cfg.ConnectionsPerAddress, Connections: connections(), Tracing: n.cfg.Tracing,
		Access: n.cfg.Access,
	}, httpapi.Deps{
		Listener:   n.api,
		Registry:   desk,
		Leases:     desk,
		Watches:    watches{n.hub},
		Settings:   desk,
		Backups:    desk,
		Cluster:    n.cluster,
		Balancer:   picker,
		Tickets:    n.picks,
		LogLevels:  deps.LogLevel,
		Logger:     deps.Logger,
		Registerer: metrics,
		Gatherer:   metrics,
	})
	return err
}

// stopFor makes Run end with err; the state machine calls it once it can no
// longer follow the log.
func (n *Node) stopFor(err error) {
	select {
	case n.fatal <- err:
	default: // one reason is enough
	}
}

// Run runs the node until ctx ends or a part of it fails. The edge (HTTP) stops
// first, so that no request is cut off by a raft that is gone; then the core.
func (n *Node) Run(ctx context.Context) error {
	if fault.On {
		n.log.Warn("built with deliberate bugs, for tests only", "bugs", fault.Active())
	}
	core, stopCore := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCore()
	edge, stopEdge := context.WithCancel(core)
	defer stopEdge()

	edgeDone := make(chan struct{})
	var once sync.Once
	var g run.Group
	g.Add(func() error {
		defer close(edgeDone)
		return n.http.Run(edge)
	}, func(error) { stopEdge() })
	g.Add(func() error {
		return n.hub.Run(edge)
	}, func(error) {}) // says goodbye when the edge ends
	g.Add(func() error {
		return n.keeper.Run(core)
	}, func(error) {}) // ends with the core
	g.Add(func() error {
		return n.checks.Run(core)
	}, func(error) {}) // ends with the core
	g.Add(func() error {
		n.picks.exchange(edge)
		return nil
	}, func(error) {}) // ends with the edge, where outcomes come in
	g.Add(func() error {
		n.backups.run(edge)
		return nil
	}, func(error) {}) // ends with the edge
	g.Add(func() error {
		n.transitions.run(core)
		return nil
	}, func(error) {}) // ends with the core
	g.Add(func() error {
		n.trim(edge)
		<-edge.Done()
		return nil
	}, func(error) {}) // ends with the edge
	g.Add(func() error {
		return n.cluster.Run(core)
	}, func(error) {
		// Interrupted because something else ended: the edge drains first. It cannot
		// be waited for here, where the other interrupts have yet to be called.
		once.Do(func() {
			stopEdge()
			context.AfterFunc(edge, func() { <-edgeDone; stopCore() })
		})
	})
	g.Add(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-edge.Done():
			return nil
		case err := <-n.fatal:
			return err
		}
	}, func(error) {})
	return g.Run()
}

// trim gives back to the system, once the node has caught up, what reading the
// log and the snapshot took: as much again as the state itself, and never needed
// again.
func (n *Node) trim(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, ready := n.cluster.Freshness(); ready {
			debug.FreeOSMemory()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Kill ends the node as a crash would: at once, and with nothing said to the
// other nodes. It is for tests; Run returns soon after.
func (n *Node) Kill() {
	n.cluster.Kill()
	n.stopFor(errKilled)
}

// ID is the id made inside the node's data directory.
func (n *Node) ID() string { return n.cluster.ID() }

// APIAddr is the bound address of the HTTP API.
func (n *Node) APIAddr() string { return n.api.Addr().String() }

// Cluster is the node's part in the cluster, for tests and for tools in the same
// process.
func (n *Node) Cluster() *cluster.Node { return n.cluster }

// State is the node's copy of the replicated state, for tests and for tools in
// the same process.
func (n *Node) State() *fsm.FSM { return n.state }

// Metrics are what GET /metrics shows, for tests and for tools in the same process.
func (n *Node) Metrics() *prometheus.Registry { return n.registry }

// checkBinds refuses a bind that others can reach, unless that was asked for.
func checkBinds(cfg Config) error {
	const key, cert = "--cluster-key-file", "--tls-cert-file and --tls-key-file"
	for _, b := range []struct{ flag, addr, by, with string }{
		{"--api-addr", cfg.APIAddr, cert, cfg.Secrets.TLSCertFile},
		{"--peer-addr", cfg.PeerAddr, key, cfg.Secrets.ClusterKeyFile},
		{"--gossip-addr", cfg.GossipAddr, key, cfg.Secrets.ClusterKeyFile},
	} {
		host, _, err := net.SplitHostPort(b.addr)
		if err != nil {
			return configError("%s %q is not HOST:PORT: %w", b.flag, b.addr, err)
		}
		if cfg.Insecure || isLoopback(host) || b.with != "" {
			continue
		}
		return configError("%s %s can be reached by others, and nothing on it is encrypted: "+
			"secure it with %s, bind to loopback, or accept that with --insecure", b.flag, b.addr, b.by)
	}
	return nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, configError("binding the API port %s: %w; choose another with --api-addr", addr, err)
	}
	return l, nil
}
