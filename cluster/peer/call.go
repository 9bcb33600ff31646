package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// line is the connection on which calls to one address travel.
type line struct {
	mu      sync.Mutex // guards what follows
	conn    *http.ClientConn
	dialing *dialing
}

// dialing is a dial under way; its results are valid once done is closed.
type dialing struct {
	done chan struct{}
	conn *http.ClientConn
	err  error
}

// setTransport prepares what turns connections into HTTP/2 clients. A dead link
// is noticed within two seconds of silence.
func (p *Port) setTransport() {
	p.transport.Protocols = new(http.Protocols)
	p.transport.Protocols.SetUnencryptedHTTP2(true)
	p.transport.DisableCompression = true
	p.transport.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		return p.dial(ctx, addr, KindRPC)
	}
	p.transport.HTTP2 = &http.HTTP2Config{
		SendPingTimeout:  time.Second,
		PingTimeout:      time.Second,
		WriteByteTimeout: 2 * time.Second,
	}
}

// Call has a peer serve a method. addr is its peer address, or At of its id and
// address, in which case no other node serves the call. The peer's handler sees
// what is left of ctx's time, and ctx's end.
//
// The error tells what happened: ErrNotSent, nothing; a *muster.Error without
// it, what the handler says; anything else, that the answer is missing and the
// call may have been carried out. A refused connection is a *RefusedError beside
// ErrNotSent, a refused dial is syscall.ECONNREFUSED beside it.
func (p *Port) Call(ctx context.Context, addr, method string, body []byte) ([]byte, error) {
	start := time.Now()
	answer, err := p.call(ctx, addr, method, body)
	outcome := outcomeOK
	switch {
	case err == nil:
	case errors.Is(err, ErrNotSent):
		outcome = outcomeNotSent
	default:
		outcome = outcomeLost
		if _, ok := errors.AsType[*muster.Error](err); ok {
			outcome = outcomeError
		}
	}
	label := "other"
	if _, ok := p.methods[method]; ok {
		label = method
	}
	p.metrics.called.WithLabelValues(label, outcome).Observe(time.Since(start).Seconds())
	return answer, err
}

func (p *Port) call(ctx context.Context, target, method string, body []byte) ([]byte, error) {
	if len(body) > MaxBody {
		return nil, notSent(muster.Errorf(muster.CodeBodyTooLarge, "a call of %d bytes is too large", len(body)))
	}
	want, addr := splitAt(target)
	for attempt := 0; ; attempt++ {
		cc, err := p.lineTo(ctx, addr)
		if err != nil {
			return nil, notSent(fmt.Errorf("calling %s of %s: %w", method, addr, err))
		}
		resp, written, err := roundTrip(ctx, cc, want, addr, method, body)
		if err == nil {
			return readAnswer(resp, want, method)
		}
		// A connection that was ending when it was chosen is worth another one. It
		// is not closed: other calls may be waiting for their answers on it.
		if !written && attempt == 0 {
			p.forgetLine(addr, cc)
			continue
		}
		err = fmt.Errorf("calling %s of %s: %w", method, addr, err)
		if !written {
			err = notSent(err)
		}
		return nil, err
	}
}

func notSent(err error) error { return fmt.Errorf("%w: %w", ErrNotSent, err) }

// roundTrip sends the request. If it fails, written tells whether any of it may
// have left.
func roundTrip(ctx context.Context, cc *http.ClientConn, want, addr, method string, body []byte) (resp *http.Response, written bool, err error) {
	var wrote atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, "http://"+addr+"/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	req.Header["User-Agent"] = nil
	if want != "" {
		req.Header.Set(headerTo, want)
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := max(time.Until(deadline), 0)
		req.Header.Set(headerTimeout, strconv.FormatInt(left.Microseconds(), 10))
	}
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	resp, err = cc.RoundTrip(req)
	// When the context ends, the request may still be written after RoundTrip has
	// returned; only otherwise is what the trace saw the whole story.
	return resp, wrote.Load() || ctx.Err() != nil, err
}

// readAnswer reads the answer of a peer that was reached.
func readAnswer(resp *http.Response, want, method string) ([]byte, error) {
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		b, err := readBounded(resp.Body, resp.ContentLength, MaxBody)
		if err != nil {
			return nil, fmt.Errorf("reading the answer of %s: %w", method, err)
		}
		return b, nil
	case statusError:
		b, err := readBounded(resp.Body, resp.ContentLength, maxErrorBody)
		if err != nil {
			return nil, fmt.Errorf("reading the error of %s: %w", method, err)
		}
		e, err := decodeError(b)
		if err != nil {
			return nil, err
		}
		return nil, e
	case http.StatusNotFound:
		return nil, notSent(fmt.Errorf("%w %s", ErrUnknownMethod, method))
	case http.StatusMisdirectedRequest:
		return nil, notSent(&RefusedError{Code: CodeWrongNode, ByPeer: true, Reason: "it is not node " + want})
	case http.StatusServiceUnavailable:
		return nil, notSent(muster.Errorf(muster.CodeShuttingDown, "the peer is shutting down"))
	case http.StatusRequestEntityTooLarge:
		return nil, notSent(muster.Errorf(muster.CodeBodyTooLarge, "the peer takes no call that large"))
	case http.StatusRequestTimeout:
		return nil, notSent(context.DeadlineExceeded)
	case http.StatusBadRequest:
		return nil, notSent(fmt.Errorf("the peer does not understand the call of %s", method))
	}
	return nil, fmt.Errorf("the peer answered %s with status %d", method, resp.StatusCode)
}

// lineTo returns the connection to addr, dialling it if there is none. Callers
// that need it at the same time share one dial.
func (p *Port) lineTo(ctx context.Context, addr string) (*http.ClientConn, error) {
	p.linesMu.Lock()
	l := p.lines[addr]
	if l == nil {
		l = &line{}
		p.lines[addr] = l
	}
	p.linesMu.Unlock()
	for {
		l.mu.Lock()
		if l.conn != nil && l.conn.Err() == nil {
			defer l.mu.Unlock()
			return l.conn, nil
		}
		d := l.dialing
		if d == nil {
			d = &dialing{done: make(chan struct{})}
			l.dialing = d
			l.mu.Unlock()
			return p.dialLine(ctx, l, d, addr)
		}
		l.mu.Unlock()
		select {
		case <-d.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		// A dial that failed because its caller lost patience says nothing.
		if d.err != nil && !errors.Is(d.err, context.Canceled) && !errors.Is(d.err, context.DeadlineExceeded) {
			return nil, d.err
		}
	}
}

func (p *Port) forgetLine(addr string, cc *http.ClientConn) {
	p.linesMu.Lock()
	l := p.lines[addr]
	p.linesMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == cc {
		l.conn = nil
	}
}

func (p *Port) dialLine(ctx context.Context, l *line, d *dialing, addr string) (*http.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d.conn, d.err = p.transport.NewClientConn(ctx, "http", addr)
	l.mu.Lock()
	l.dialing = nil
	if d.err == nil {
		l.conn = d.conn
	}
	l.mu.Unlock()
	close(d.done)
	return d.conn, d.err
}
