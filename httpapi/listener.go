package httpapi

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// streamRetry and connectionRetry are when somebody who has too many open may
	// try again.
	streamRetry     = 5 * time.Second
	connectionRetry = 5 * time.Second
	// turnAwayTimeout bounds the answer to a connection that is not taken. A new
	// connection has room for it; it never waits in practice.
	turnAwayTimeout = 50 * time.Millisecond
)

// listener hands out connections that watch what net/http does on its own, and
// turns away those that are too many: of one address, or in all, so that the
// node keeps descriptors for its disk and its peers.
type listener struct {
	net.Listener
	s *Server
}

func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		place, full := l.s.connections.enter(addressOf(c.RemoteAddr().String()))
		if full == nil {
			l.s.metrics.connections.Inc()
			return &conn{Conn: c, s: l.s, head: newHead(), place: place}, nil
		}
		l.s.metrics.turnedAway.Inc()
		l.s.turnAway(c, full)
	}
}

// turnAway ends a connection that is one too many. A client of TLS would not
// understand an answer before its handshake, which is dear: it is told nothing.
func (s *Server) turnAway(c net.Conn, why *muster.Error) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteDeadline(time.Now().Add(turnAwayTimeout))
		_, _ = tcp.Write(s.refusal(why, tcp.RemoteAddr()))
		_ = tcp.CloseWrite()
	}
	_ = c.Close() // it is gone either way
}

// connections counts those that are open.
type connections struct {
	most   int
	open   atomic.Int64
	byAddr addressCap
}

// enter lets a connection in, or says why not.
func (n *connections) enter(from netip.Addr) (*place, *muster.Error) {
	if n.open.Add(1) > int64(n.most) {
		n.open.Add(-1)
		return nil, muster.Errorf(muster.CodeOverloaded, "this node has %d connections open, which is as many as it takes", n.most).
			WithHint("ask another node").WithRetryAfter(connectionRetry)
	}
	if !n.byAddr.enter(from) {
		n.open.Add(-1)
		return nil, muster.Errorf(muster.CodeRateLimited, "%s has %d connections open to this node, which is as many as an address may have", from, n.byAddr.most).
			WithHint("keep connections open and use them again, or ask for a higher --max-connections-per-address").WithRetryAfter(connectionRetry)
	}
	return &place{of: n, from: from}, nil
}

// place is one connection's among those that are counted.
type place struct {
	of       *connections
	from     netip.Addr
	unlisted sync.Once
	closed   sync.Once
}

// unlist takes the connection out of those of its address: as a stream it is
// counted elsewhere.
func (p *place) unlist() { p.unlisted.Do(func() { p.of.byAddr.leave(p.from) }) }

// close gives the place up, and reports whether that is new.
func (p *place) close() (first bool) {
	p.unlist()
	p.closed.Do(func() {
		p.of.open.Add(-1)
		first = true
	})
	return first
}
