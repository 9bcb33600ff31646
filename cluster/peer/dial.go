package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// dialTimeout bounds a dial with its handshake when nothing else does.
const dialTimeout = 2 * time.Second

var errEnded = errors.New("peer port has ended")

// dial connects to target, which may name a node (At), and says hello. Its
// errors are not marked with ErrNotSent.
func (p *Port) dial(ctx context.Context, target string, kind Kind) (*conn, error) {
	want, addr := splitAt(target)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leave, ok := p.life.enter(cancel)
	if !ok {
		return nil, errEnded
	}
	defer leave()
	nc, err := p.connect(ctx, addr)
	if err != nil {
		p.metrics.refused.WithLabelValues("out", codeBroken).Inc()
		return nil, err
	}
	c, ok := p.adopt(nc)
	if !ok {
		return nil, errEnded
	}
	// A context that ends during the handshake ends the connection.
	unhook := context.AfterFunc(ctx, func() { _ = c.Close() })
	deadline := time.Now().Add(p.cfg.HandshakeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	remote, err := p.greet(ctx, c, kind, want, deadline)
	if !unhook() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && !p.establish(c, remote, kind, true) {
		err = net.ErrClosed
	}
	if err != nil {
		p.metrics.refused.WithLabelValues("out", refusalCode(err)).Inc()
		_ = c.Close()
		return nil, fmt.Errorf("peer %s: %w", addr, err)
	}
	return c, nil
}

// Probe connects to an address and hangs up. syscall.ECONNREFUSED in its error says
// that nobody listens there.
func (p *Port) Probe(ctx context.Context, addr string) error {
	nc, err := p.connect(ctx, addr)
	if err != nil {
		return err
	}
	return nc.Close()
}

func (p *Port) connect(ctx context.Context, addr string) (net.Conn, error) {
	if err := p.cfg.Links.passDial(ctx, string(p.addr), addr); err != nil {
		return nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if p.cfg.Links != nil {
		nc = newLinkConn(nc, p.cfg.Links, string(p.addr), addr)
	}
	return nc, nil
}

// StreamLayer returns what raft's network transport runs on. There is one; when
// it is closed, raft connections are refused from then on.
func (p *Port) StreamLayer() raft.StreamLayer { return streamLayer{handoff: p.streams, port: p} }

type streamLayer struct {
	*handoff
	port *Port
}

// Dial connects to a peer, which address may name by At.
func (s streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		timeout = dialTimeout
	}
	// Raft gives no context; the end of the port ends this one.
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := s.port.dial(ctx, string(address), KindRaft)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.closed:
		_ = c.Close()
		return nil, net.ErrClosed
	default:
		return c, nil
	}
}
