package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// Bounds of the HTTP server.
const (
	// headerSlack is what net/http allows above MaxHeaderBytes.
	headerSlack = 4096

	// defaultDrain leaves time to say goodbye to everybody, and is short enough for a
	// node to stop within 5 s.
	defaultDrain = 3 * time.Second
	maxDrain     = time.Minute
)

// Config is what a Server can be told.
type Config struct {
	// Version is this build's, for GET /v1/version.
	Version string
	// Hosts are names that a Host header may bear, beside those of loopback, while
	// the listener is bound to loopback. On other addresses any Host will do.
	Hosts []string
	// StreamsPerAddress is how many streams one address may have open, loopback
	// excepted: muster.DefaultStreamsPerAddress where it is 0.
	StreamsPerAddress int
	// ConnectionsPerAddress is how many connections one address may have open,
	// loopback excepted; one that carries a stream counts as that.
	// muster.DefaultConnectionsPerAddress where it is 0.
	ConnectionsPerAddress int
	// Connections is how many there may be in all: muster.MaxConnections where it is 0.
	Connections int
	// Tracing makes a span of every request, by the global tracer provider and
	// propagator of OpenTelemetry.
	Tracing bool
	// Access says which requests are logged.
	Access Access
	// Drain bounds how long Run waits for requests in flight once its context has
	// ended: 3 s where it is 0, at most 1 min.
	Drain time.Duration
}

func (c Config) withDefaults() Config {
	if c.Drain == 0 {
		c.Drain = defaultDrain
	}
	if c.StreamsPerAddress == 0 {
		c.StreamsPerAddress = muster.DefaultStreamsPerAddress
	}
	if c.ConnectionsPerAddress == 0 {
		c.ConnectionsPerAddress = muster.DefaultConnectionsPerAddress
	}
	if c.Connections == 0 {
		c.Connections = muster.MaxConnections
	}
	return c
}

// Server answers the HTTP API of one node.
type Server struct {
	cfg         Config
	deps        Deps
	registry    Registry
	leases      Leases
	watches     Watches
	streams     addressCap
	connections connections
	pace        pacer
	settings    Settings
	backups     Backups
	cluster     Cluster
	balancer    *balancer.Balancer
	tickets     Tickets
	rendered    *rendered
	log         *slog.Logger
	metrics     *metrics
	metricsPage http.Handler
	table       *table
	hosts       hostList // nil: any Host
	crossOrigin *http.CrossOriginProtection
	node        []string // the value of Muster-Node

	idPrefix string
	lastID   atomic.Uint64

	// stopping is closed when the server begins to stop: waits end, answers go on.
	stopping chan struct{}
	inFlight atomic.Int64
	waiting  atomic.Int64  // long polls
	idle     chan struct{} // a token when inFlight falls to 0 while stopping
}

// New makes a Server of its parts; it starts nothing.
func New(cfg Config, deps Deps) (*Server, error) {
	switch {
	case deps.Listener == nil || deps.Registry == nil || deps.Leases == nil || deps.Watches == nil || deps.Settings == nil || deps.Backups == nil || deps.Cluster == nil:
		return nil, errors.New("httpapi: needs a listener, a registry, leases, watches, settings, backups and a cluster")
	case deps.LogLevels == nil:
		return nil, errors.New("httpapi: needs to know who sets the level of the log")
	case deps.Balancer == nil || deps.Tickets == nil:
		return nil, errors.New("httpapi: needs a balancer and who takes reports on its tickets")
	case cfg.Drain < 0 || cfg.Drain > maxDrain:
		return nil, fmt.Errorf("httpapi: drain %s is not between 0 and %s", cfg.Drain, maxDrain)
	case cfg.Access.Sample < 0 || cfg.Access.Sample > 1 || cfg.Access.Slow < 0:
		return nil, fmt.Errorf("httpapi: a sample of %v of the requests, or slow ones from %s, cannot be meant", cfg.Access.Sample, cfg.Access.Slow)
	case cfg.StreamsPerAddress < 0:
		return nil, fmt.Errorf("httpapi: %d streams an address are less than one", cfg.StreamsPerAddress)
	case cfg.ConnectionsPerAddress < 0 || cfg.Connections < 0:
		return nil, fmt.Errorf("httpapi: %d connections an address and %d in all are less than one", cfg.ConnectionsPerAddress, cfg.Connections)
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults()
	routes := routeTable()
	t, err := newTable(routes)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Registerer, routes)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, deps: deps, registry: deps.Registry, leases: deps.Leases, watches: deps.Watches, settings: deps.Settings, backups: deps.Backups,
		cluster: deps.Cluster, log: deps.Logger,
		balancer: deps.Balancer, tickets: deps.Tickets, rendered: newRendered(),
		metrics: m, metricsPage: newMetricsPage(deps.Gatherer, deps.Logger), table: t,
		crossOrigin: http.NewCrossOriginProtection(), node: []string{deps.Cluster.ID()},
		idPrefix:    strings.ToLower(rand.Text()[:10]) + "-",
		streams:     addressCap{most: cfg.StreamsPerAddress},
		connections: connections{most: cfg.Connections, byAddr: addressCap{most: cfg.ConnectionsPerAddress}},
		stopping:    make(chan struct{}), idle: make(chan struct{}, 1),
	}
	if addr, ok := deps.Listener.Addr().(*net.TCPAddr); !ok || addr.IP.IsLoopback() {
		s.hosts = newHostList(cfg.Hosts)
	}
	return s, nil
}

// Handler is what Run serves, without the listener.
func (s *Server) Handler() http.Handler {
	if s.cfg.Tracing {
		return s.traced()
	}
	return s
}

// Run serves until ctx ends. Then no new connection is taken, long polls answer
// what they have, spread over a second, streams come to the end that their Watches
// give them, and requests in flight are given Config.Drain to end; those that do
// not are cut off. Run returns once all of them have ended; it is to
// be called once.
func (s *Server) Run(ctx context.Context) error {
	// Requests outlive ctx by the drain: a write that has been proposed is to be
	// answered.
	base, cutOff := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), stoppingKey{}, ctx))
	defer cutOff()
	requests := context.WithValue(base, baseKey{}, base)
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: muster.HeaderTimeout,
		IdleTimeout:       muster.IdleTimeout,
		MaxHeaderBytes:    muster.MaxHeaderBytes - headerSlack,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState:         connState,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		// OPTIONS * is answered as any other path that does not begin with a slash.
		DisableGeneralOptionsHandler: true,
	}
	// HTTP/2 is off: it answers headers that are too large with a page of HTML.
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)

	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener{s.deps.Listener, s}) }()
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-served:
		failed = fmt.Errorf("httpapi: serving on %s: %w", s.deps.Listener.Addr(), failed)
	}
	close(s.stopping)
	drain, done := context.WithTimeout(base, s.cfg.Drain)
	defer done()
	if srv.Shutdown(drain) != nil || !s.ended(drain) {
		s.log.Warn("requests were cut off at shutdown", "in_flight", s.inFlight.Load(), "duration", s.cfg.Drain)
		cutOff()
		_ = srv.Close() // what is left is to end either way
	}
	if failed == nil {
		<-served
	}
	s.ended(context.WithoutCancel(ctx))
	return failed
}

// ended returns once nothing is in flight, or false where ctx ends first.
func (s *Server) ended(ctx context.Context) bool {
	for s.inFlight.Load() > 0 {
		select {
		case <-s.idle:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// arrive and depart are called at the beginning and at the end of a request, and
// of a stream, which outlives its request.
func (s *Server) arrive() {
	s.inFlight.Add(1)
	s.metrics.inFlight.Inc()
}

func (s *Server) depart() {
	s.metrics.inFlight.Dec()
	if s.inFlight.Add(-1) == 0 && s.isStopping() {
		select {
		case s.idle <- struct{}{}:
		default: // there is a token already
		}
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.arrive()
	if mine, ok := r.Context().Value(connKey{}).(*conn); ok {
		mine.handled = true
	}
	c := &call{s: s, w: w, r: r, values: noValues, id: requestID(r)}
	if c.id == "" {
		c.id = s.newRequestID()
	}
	defer s.finish(c, time.Now())
	c.begin()
	if err := s.answer(c); err != nil {
		c.fail(err)
	}
}

func (s *Server) answer(c *call) error {
	if err := s.admit(c); err != nil {
		return err
	}
	if err := s.table.find(c); err != nil {
		return err
	}
	if c.route == nil { // OPTIONS, told by Allow
		return c.empty(http.StatusNoContent)
	}
	c.name()
	v, err := parseQuery(c.r.URL.RawQuery, c.route.params)
	if err != nil {
		return err
	}
	c.values = v
	g := s.metrics.gates[c.route.class]
	if c.route.class == classWrite {
		if err := s.cluster.Overloaded(); err != nil {
			g.shed.Inc()
			return err
		}
	}
	if !g.enter(c.r.Context()) {
		return shed(c.route.class)
	}
	c.gate = g
	return c.route.handle(s, c)
}

// finish recovers a panic, counts and logs. A panic after the answer has begun
// cuts the connection, since nothing true can be said on it any more.
func (s *Server) finish(c *call, start time.Time) {
	p := recover()
	c.leave()
	if p != nil && p != http.ErrAbortHandler {
		s.metrics.panics.Inc()
		s.log.Error("handler panicked", c.ids(), "method", c.method(), "route", c.pattern(),
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if c.status == 0 {
			c.fail(fmt.Errorf("panic: %v", p))
			p = nil
		} else {
			p = http.ErrAbortHandler
		}
	}
	took := time.Since(start)
	s.metrics.answered(c, took)
	s.access(c, took)
	s.depart()
	if p != nil {
		panic(p)
	}
}

func (s *Server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// requestID is the id that the caller gave, if it may be used: at most 64
// printable characters.
func requestID(r *http.Request) string {
	ids := r.Header[headerRequestID]
	if len(ids) != 1 || len(ids[0]) > muster.MaxRequestIDLen {
		return ""
	}
	for i := range len(ids[0]) {
		if c := ids[0][i]; c < 0x20 || c > 0x7e {
			return ""
		}
	}
	return ids[0]
}

// newRequestID makes an id that is unique over nodes and restarts, and cheap.
func (s *Server) newRequestID() string {
	return s.idPrefix + strconv.FormatUint(s.lastID.Add(1), 36)
}
