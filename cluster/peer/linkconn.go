package peer

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// linkConn is a connection over Links.
type linkConn struct {
	net.Conn
	links *Links
	local string

	closeOnce sync.Once
	closed    chan struct{}

	mu       sync.Mutex // guards what follows
	remote   string     // "" until the hello has been read
	deadline time.Time  // for reading
	moved    chan struct{}

	// Touched by the reading goroutine only: what arrived while the link was cut.
	held    []byte
	heldErr error
}

func newLinkConn(nc net.Conn, links *Links, local, remote string) *linkConn {
	c := &linkConn{
		Conn: nc, links: links, local: local, remote: remote,
		closed: make(chan struct{}), moved: make(chan struct{}, 1),
	}
	links.add(c)
	return c
}

func (c *linkConn) setRemote(addr string) {
	c.mu.Lock()
	c.remote = addr
	c.mu.Unlock()
	c.resetIfRefused()
}

func (c *linkConn) ends() (local, remote string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local, c.remote
}

// Read gives what has arrived once the link lets it through.
func (c *linkConn) Read(b []byte) (int, error) {
	for {
		if err := c.pass(); err != nil {
			return 0, err
		}
		if len(c.held) > 0 {
			n := copy(b, c.held)
			c.held = c.held[n:]
			return n, nil
		}
		if c.heldErr != nil {
			return 0, c.heldErr
		}
		n, err := c.Conn.Read(b)
		local, remote := c.ends()
		if c.links.state(remote, local) == linkOpen || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return n, err
		}
		c.held, c.heldErr = bytes.Clone(b[:n]), err
	}
}

// pass waits until bytes may arrive.
func (c *linkConn) pass() error {
	for {
		local, remote := c.ends()
		if c.links.state(remote, local) == linkOpen {
			return nil
		}
		state, changed := c.links.watch(remote, local)
		if state == linkOpen {
			return nil
		}
		if err := c.await(changed); err != nil {
			return err
		}
	}
}

// await waits for changed, the end of the connection or the read deadline.
func (c *linkConn) await(changed <-chan struct{}) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.mu.Lock()
		deadline := c.deadline
		c.mu.Unlock()
		timer.Stop()
		if !deadline.IsZero() {
			timer.Reset(time.Until(deadline))
		}
		select {
		case <-changed:
			return nil
		case <-c.closed:
			return net.ErrClosed
		case <-timer.C:
			return os.ErrDeadlineExceeded
		case <-c.moved:
		}
	}
}

// resetIfRefused ends the connection the way a dead process does.
func (c *linkConn) resetIfRefused() {
	local, remote := c.ends()
	if c.links.state(local, remote) != linkRefused && c.links.state(remote, local) != linkRefused {
		return
	}
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// Close closes the connection.
func (c *linkConn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.links.remove(c)
	})
	return c.Conn.Close()
}

// SetDeadline sets both deadlines.
func (c *linkConn) SetDeadline(t time.Time) error {
	c.moveDeadline(t)
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline sets the deadline of Read, also of one that waits for a link.
func (c *linkConn) SetReadDeadline(t time.Time) error {
	c.moveDeadline(t)
	return c.Conn.SetReadDeadline(t)
}

func (c *linkConn) moveDeadline(t time.Time) {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	select {
	case c.moved <- struct{}{}:
	default:
	}
}

// passDial waits until a dial could succeed: both directions must work.
func (l *Links) passDial(ctx context.Context, from, to string) error {
	if l == nil {
		return nil
	}
	for {
		there, changed := l.watch(from, to)
		back := l.state(to, from)
		switch {
		case there == linkRefused || back == linkRefused:
			return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		case there == linkOpen && back == linkOpen:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		}
	}
}
