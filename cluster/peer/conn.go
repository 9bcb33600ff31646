package peer

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// conn is a connection of the port, from accept or dial to its end.
type conn struct {
	net.Conn
	// Set once the hello has been said, before anybody else sees the conn.
	remote  Hello
	kind    Kind
	in, out prometheus.Counter // bytes

	mu     sync.Mutex // guards closed and forget
	closed bool
	forget func() // undoes Port.establish

	// leave ends the port's wait for the conn. Close calls it, unless the HTTP
	// server has it: that goes on for a moment after closing.
	leave  func()
	served atomic.Bool
}

// Read reads and counts.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.in.Add(float64(n))
	return n, err
}

// Write writes and counts.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.out.Add(float64(n))
	return n, err
}

// seal puts what encrypts the connection in its place. Nobody reads or writes yet,
// but the end of the port may close it.
func (c *conn) seal(nc net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Conn = nc
}

// Close closes the connection.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	forget, nc := c.forget, c.Conn
	c.mu.Unlock()
	err := nc.Close()
	if forget != nil {
		forget()
	}
	if !c.served.Load() {
		c.leave()
	}
	return err
}

// handoff is a listener fed with connections that were accepted elsewhere. It
// belongs to one consumer.
type handoff struct {
	addr   net.Addr
	conns  chan *conn
	once   sync.Once
	closed chan struct{}
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan *conn), closed: make(chan struct{})}
}

// Accept returns the next connection, net.ErrClosed after Close.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept fail. Connections that were accepted stay.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr returns the advertised address.
func (h *handoff) Addr() net.Addr { return h.addr }

// advertised is a peer address as others dial it; its host may be a DNS name.
type advertised string

// Network returns "tcp".
func (a advertised) Network() string { return "tcp" }

// String returns host:port.
func (a advertised) String() string { return string(a) }
