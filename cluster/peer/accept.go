package peer

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	acceptBackoff    = 5 * time.Millisecond
	maxAcceptBackoff = time.Second
)

// accept takes connections until the listener is closed. It survives a lack of
// file descriptors.
func (p *Port) accept(ctx context.Context) {
	backoff := time.Duration(0)
	for {
		nc, err := p.listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			p.notices.warn("accept", "peer port cannot accept connections", "err", err)
			backoff = min(max(2*backoff, acceptBackoff), maxAcceptBackoff)
			if !pause(ctx, backoff) {
				return
			}
			continue
		}
		backoff = 0
		if p.cfg.Links != nil {
			nc = newLinkConn(nc, p.cfg.Links, string(p.addr), "")
		}
		c, ok := p.adopt(nc)
		if !ok {
			return
		}
		ticket := p.pending.add(c)
		go p.receive(c, ticket)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// receive does the handshake of an accepted connection and hands it on.
func (p *Port) receive(c *conn, ticket uint64) {
	named := func(string) {}
	if lc, ok := c.Conn.(*linkConn); ok {
		named = lc.setRemote
	}
	remote, kind, err := p.welcome(c, named)
	p.pending.remove(ticket)
	if err != nil {
		p.notWelcome(c.RemoteAddr().String(), remote, err)
		_ = c.Close()
		return
	}
	if !p.establish(c, remote, kind, false) {
		return
	}
	queue := p.streams
	if kind == KindRPC {
		queue = p.calls
		c.served.Store(true)
	}
	wait := time.NewTimer(p.cfg.HandshakeTimeout)
	defer wait.Stop()
	select {
	case queue.conns <- c:
		return
	case <-queue.closed:
	case <-wait.C: // raft's transport has not been started
	}
	_ = c.Close()
	c.leave()
}

// notWelcome counts and logs a handshake that failed.
func (p *Port) notWelcome(from string, remote Hello, err error) {
	code := refusalCode(err)
	p.metrics.refused.WithLabelValues("in", code).Inc()
	args := []any{"code", code, "remote", from}
	if remote.NodeID != "" {
		args = append(args, "node", remote.NodeID, "addr", remote.Addr)
	}
	args = append(args, "err", err)
	if code == codeBroken {
		// A health check that connects and leaves, or a peer that died: no matter.
		p.cfg.Logger.Debug("peer connection ended in its handshake", args...)
		return
	}
	p.notices.warn(code, "peer connection refused", args...)
}

// pending are the connections that have not said hello. A node says it within a
// round trip, so when they are too many the oldest are the idle ones.
type pending struct {
	max   int
	mu    sync.Mutex // guards what follows
	next  uint64     // the ticket of the next one
	first uint64     // none has a lower ticket
	conns map[uint64]net.Conn
}

func (q *pending) add(nc net.Conn) (ticket uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.conns == nil {
		q.conns = make(map[uint64]net.Conn)
	}
	for len(q.conns) >= q.max {
		if oldest, ok := q.conns[q.first]; ok {
			_ = oldest.Close()
			delete(q.conns, q.first)
		}
		q.first++
	}
	ticket = q.next
	q.next++
	q.conns[ticket] = nc
	return ticket
}

func (q *pending) remove(ticket uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.conns, ticket)
}
