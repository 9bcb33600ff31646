package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	defaultMaxConns         = 1024
	defaultMaxHandshakes    = 128
	defaultHandshakeTimeout = 5 * time.Second
	// drainTimeout is how long handlers may take to answer once the port ends.
	drainTimeout = time.Second
	// flushTimeout is how long their answers may take to leave.
	flushTimeout = 250 * time.Millisecond
)

// Config is what a Port is made from.
type Config struct {
	// Bind is the address to listen on. Advertise is the address others dial, as
	// host:port or host; a missing port, or 0, is the one listened on, and a
	// missing host the address listened on.
	Bind, Advertise string
	// Self returns how this node introduces itself; asked for each connection.
	Self func() Hello
	// Admit decides about a node that has said hello. Both sides of a connection
	// ask it; its error is told to the other side (a *RefusedError as it is) and
	// ends the connection. nil admits everybody.
	Admit      func(remote Hello, kind Kind) error
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Keys are the cluster's secrets, of KeySize bytes each: the first is used, any
	// is accepted. With any, connections are encrypted, and only nodes that have one
	// of them are spoken with.
	Keys [][]byte
	// Links is the seam for tests; nil in production.
	Links *Links
	// Listener is used instead of listening on Bind.
	Listener net.Listener
	// MaxConns bounds the connections of peers that dialled; 1024 if 0.
	MaxConns int
	// MaxHandshakes bounds the connections that have not said hello yet; 128 if
	// 0. The oldest makes room for a new one.
	MaxHandshakes int
	// HandshakeTimeout bounds a handshake; 5 s if 0.
	HandshakeTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.Admit == nil {
		c.Admit = func(Hello, Kind) error { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxConns <= 0 {
		c.MaxConns = defaultMaxConns
	}
	if c.MaxHandshakes <= 0 {
		c.MaxHandshakes = defaultMaxHandshakes
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = defaultHandshakeTimeout
	}
	return c
}

// Port is the peer port of one node.
type Port struct {
	cfg      Config
	seals    *sealer // nil without keys
	listener net.Listener
	addr     advertised
	metrics  *metrics
	notices  *notices

	streams *handoff // raft connections
	calls   *handoff // connections that carry calls

	methods map[string]Handler // not written after Run has begun
	running atomic.Bool
	inbound atomic.Int64

	life     lifetime // dials, handshakes and connections
	handlers lifetime // calls being served
	pending  pending

	connsMu sync.Mutex // guards conns
	conns   map[*conn]struct{}

	transport http.Transport
	linesMu   sync.Mutex // guards lines
	lines     map[string]*line
}

// New binds the port. It serves once Run is called; until then dials work and
// connections of others wait. The listener is closed when Run ends, or by Close.
func New(cfg Config) (*Port, error) {
	if cfg.Self == nil {
		return nil, errors.New("peer port: no Self")
	}
	cfg = cfg.withDefaults()
	seals, err := newSealer(cfg.Keys)
	if err != nil {
		return nil, err
	}
	l := cfg.Listener
	if l == nil {
		if l, err = net.Listen("tcp", cfg.Bind); err != nil {
			return nil, fmt.Errorf("peer port: %w", err)
		}
	}
	p := &Port{
		cfg: cfg, seals: seals, listener: l,
		metrics: newMetrics(), notices: &notices{logger: cfg.Logger},
		methods: make(map[string]Handler),
		conns:   make(map[*conn]struct{}),
		lines:   make(map[string]*line),
	}
	if p.addr, err = advertise(cfg.Advertise, l.Addr().String()); err == nil {
		err = p.metrics.register(cfg.Registerer)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	p.streams, p.calls = newHandoff(p.addr), newHandoff(p.addr)
	p.pending.max = cfg.MaxHandshakes
	p.setTransport()
	return p, nil
}

// advertise completes the address to advertise from the one listened on.
func advertise(want, bound string) (advertised, error) {
	boundHost, boundPort, err := net.SplitHostPort(bound)
	if err != nil {
		return "", fmt.Errorf("peer port: %w", err)
	}
	if want == "" {
		return advertised(bound), nil
	}
	host, port, err := net.SplitHostPort(want)
	if err != nil {
		if host, port, err = net.SplitHostPort(net.JoinHostPort(want, "0")); err != nil {
			return "", fmt.Errorf("peer port: advertised address: %w", err)
		}
	}
	if host == "" {
		host = boundHost
	}
	if port == "0" || port == "" {
		port = boundPort
	}
	return advertised(net.JoinHostPort(host, port)), nil
}

// Addr returns the address listened on.
func (p *Port) Addr() net.Addr { return p.listener.Addr() }

// Advertised returns the address others dial.
func (p *Port) Advertised() string { return string(p.addr) }

// Close frees the port without Run; it does nothing while Run runs.
func (p *Port) Close() error {
	if p.running.Load() {
		return nil
	}
	p.end()
	return nil
}

// Run serves until ctx ends, and returns when all connections, dials and
// handlers have ended. Handlers are given a second to answer.
func (p *Port) Run(ctx context.Context) error {
	if p.running.Swap(true) {
		return errors.New("peer port: Run was called before")
	}
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	server := p.server(base)
	var wg sync.WaitGroup
	wg.Go(func() { p.accept(base) })
	serveErr := make(chan error, 1)
	wg.Go(func() { serveErr <- server.Serve(p.calls) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-serveErr:
		err = fmt.Errorf("peer port: %w", err)
	}
	cancel()
	_ = p.listener.Close()
	p.drain()
	p.flush(ctx, server)
	_ = server.Close()
	p.end()
	wg.Wait()
	return err
}

// drain waits a little for handlers, whose context has ended, to answer.
func (p *Port) drain() {
	p.handlers.close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.handlers.wait()
	}()
	limit := time.NewTimer(drainTimeout)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	}
}

// flush lets out the answers of handlers that have returned. Cut off, they would leave
// their callers not knowing what became of a write.
func (p *Port) flush(ctx context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	_ = server.Shutdown(ctx) // what is left then is cut off
}

// end closes everything and waits for it.
func (p *Port) end() {
	_ = p.listener.Close()
	_ = p.streams.Close()
	_ = p.calls.Close()
	p.handlers.close()
	p.life.close()
	p.life.stop()
	p.life.wait()
	p.handlers.wait()
}

// CloseConns closes the connections, of either direction, for which match says
// so, and returns how many there were. New ones are Admit's concern.
func (p *Port) CloseConns(match func(remote Hello, kind Kind) bool) int {
	p.connsMu.Lock()
	var doomed []*conn
	for c := range p.conns {
		doomed = append(doomed, c)
	}
	p.connsMu.Unlock()
	n := 0
	for _, c := range doomed {
		if match(c.remote, c.kind) {
			n++
			_ = c.Close()
		}
	}
	return n
}

// adopt makes a conn of a new connection; the port closes it when it ends. It
// reports false, having closed nc, when the port has ended.
func (p *Port) adopt(nc net.Conn) (*conn, bool) {
	c := &conn{Conn: nc}
	var ok bool
	if c.leave, ok = p.life.enter(func() { _ = c.Close() }); !ok {
		_ = nc.Close()
	}
	return c, ok
}

// establish notes that the hello has been said. It reports false if the
// connection was closed meanwhile.
func (p *Port) establish(c *conn, remote Hello, kind Kind, dialled bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	direction, inbound := "out", int64(0)
	if !dialled {
		direction, inbound = "in", 1
	}
	c.remote, c.kind = remote, kind
	c.in = p.metrics.bytes.WithLabelValues(kind.String(), "received")
	c.out = p.metrics.bytes.WithLabelValues(kind.String(), "sent")
	open := p.metrics.conns.WithLabelValues(kind.String(), direction)
	open.Inc()
	p.inbound.Add(inbound)
	p.connsMu.Lock()
	p.conns[c] = struct{}{}
	p.connsMu.Unlock()
	c.forget = func() {
		open.Dec()
		p.inbound.Add(-inbound)
		p.connsMu.Lock()
		delete(p.conns, c)
		p.connsMu.Unlock()
	}
	return true
}
