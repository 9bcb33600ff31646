package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/muster-registry/muster"
)

// MaxBody bounds the body and the answer of a call.
const MaxBody = 16 << 20

const (
	maxStreams     = 1000
	maxHeaderBytes = 16 << 10
	// bodyBuffer is what is set aside for a body before any of it has come.
	bodyBuffer = 64 << 10
	maxTimeout = time.Hour

	headerTimeout = "Muster-Timeout-Us" // how long the caller will wait
	headerTo      = "Muster-To"         // the node the call is meant for

	// The statuses of answers. Those of a handler are 200 and statusError.
	statusError = http.StatusUnprocessableEntity
)

// Handler serves a method. from is who called, as it said when the connection
// began; the context ends with the caller's patience, its connection or the port.
type Handler = func(ctx context.Context, from Hello, body []byte) ([]byte, error)

// Handle sets the handler of a method, a short lower-case word. It must be called
// before Run, and once for each method. A *muster.Error of the handler reaches
// the caller without its cause; any other error is logged here and is
// CodeInternal there.
func (p *Port) Handle(method string, fn Handler) {
	if p.running.Load() {
		panic("peer: Handle after Run")
	}
	if _, ok := p.methods[method]; ok || method == "" {
		panic("peer: method " + method + " has a handler already or no name")
	}
	p.methods[method] = fn
}

// server returns the HTTP server of calls; base is the context of its handlers.
func (p *Port) server(base context.Context) *http.Server {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           http.HandlerFunc(p.serveHTTP),
		Protocols:         &protocols,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: p.cfg.HandshakeTimeout,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      5 * time.Second,
			PingTimeout:          5 * time.Second,
			WriteByteTimeout:     5 * time.Second,
		},
		BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, callerKey{}, nc.(*conn).remote)
		},
		ConnState: func(nc net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				nc.(*conn).leave()
			}
		},
		ErrorLog: slog.NewLogLogger(p.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

// callerKey is the key of the caller's Hello in the context of a connection.
type callerKey struct{}

func (p *Port) serveHTTP(w http.ResponseWriter, r *http.Request) {
	leave, ok := p.handlers.enter(nil)
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer leave()
	from, ok := r.Context().Value(callerKey{}).(Hello)
	method := strings.TrimPrefix(r.URL.Path, "/")
	fn, known := p.methods[method]
	to := r.Header.Get(headerTo)
	switch {
	case !ok || r.Method != http.MethodPost:
		w.WriteHeader(http.StatusBadRequest)
		return
	case !known:
		w.WriteHeader(http.StatusNotFound)
		return
	case to != "" && to != p.cfg.Self().NodeID:
		w.WriteHeader(http.StatusMisdirectedRequest)
		return
	}
	body, status := readBody(r)
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	ctx, cancel, err := withCallerTimeout(r)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	defer cancel()
	if ctx.Err() != nil {
		w.WriteHeader(http.StatusRequestTimeout)
		return
	}
	start := time.Now()
	answer, err := p.serve(ctx, method, fn, from, body)
	outcome := outcomeOK
	if err != nil {
		outcome = outcomeError
	}
	p.metrics.served.WithLabelValues(method, outcome).Observe(time.Since(start).Seconds())
	respond(w, answer, err)
}

// serve runs a handler and makes a *muster.Error of its error.
func (p *Port) serve(ctx context.Context, method string, fn Handler, from Hello, body []byte) (answer []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			p.metrics.panics.Inc()
			p.cfg.Logger.Error("handler of an internal call panicked", "method", method, "node", from.NodeID,
				"err", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = muster.Errorf(muster.CodeInternal, "the peer could not serve %s", method)
		}
	}()
	answer, err = fn(ctx, from, body)
	if err == nil && len(answer) > MaxBody {
		err = fmt.Errorf("an answer of %d bytes is too large", len(answer))
	}
	if err == nil {
		return answer, nil
	}
	if e, ok := errors.AsType[*muster.Error](err); ok {
		return nil, e
	}
	if ctx.Err() == nil {
		p.cfg.Logger.Warn("internal call failed", "method", method, "node", from.NodeID, "err", err)
	}
	return nil, muster.Errorf(muster.CodeInternal, "the peer could not serve %s", method)
}

func respond(w http.ResponseWriter, answer []byte, err error) {
	if e, ok := errors.AsType[*muster.Error](err); ok {
		answer = encodeError(e)
		if len(answer) > maxErrorBody {
			answer = encodeError(&muster.Error{Code: e.Code, RetryAfter: e.RetryAfter})
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.Header()["Date"] = nil
	if err != nil {
		w.WriteHeader(statusError)
	}
	// The caller is gone if this fails; there is nobody to tell.
	_, _ = w.Write(answer)
}

// readBody reads a bounded body without believing its announced length. A
// status other than 0 is the answer.
func readBody(r *http.Request) ([]byte, int) {
	if r.ContentLength > MaxBody {
		return nil, http.StatusRequestEntityTooLarge
	}
	b, err := readBounded(r.Body, r.ContentLength, MaxBody)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, http.StatusRequestEntityTooLarge
	case err != nil:
		return nil, http.StatusBadRequest
	}
	return b, 0
}

var errTooLarge = errors.New("body too large")

func readBounded(r io.Reader, announced, limit int64) ([]byte, error) {
	var buf bytes.Buffer
	if announced > 0 {
		buf.Grow(int(min(announced, bodyBuffer)) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = errTooLarge
	}
	return buf.Bytes(), err
}

// withCallerTimeout gives the request's context the deadline of the caller.
func withCallerTimeout(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.Header.Get(headerTimeout)
	if text == "" {
		ctx, cancel := context.WithCancel(r.Context())
		return ctx, cancel, nil
	}
	us, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return nil, nil, err
	}
	d := maxTimeout
	if us < uint64(maxTimeout/time.Microsecond) {
		d = time.Duration(us) * time.Microsecond
	}
	ctx, cancel := context.WithTimeout(r.Context(), d)
	return ctx, cancel, nil
}
