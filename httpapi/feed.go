package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// feed is an open stream on its connection.
//
// The connection is taken from net/http, which would keep its buffers and the
// whole request for as long as the stream lasts: so a watcher who waits, or reads
// nothing, costs two small goroutines and little else. In exchange the feed does
// what net/http did: it notices when the other side goes, and it ends when the
// server cuts off what is left. The answer has neither length nor chunks: the end
// of the connection is its end (RFC 9112 §6.3), and messages have their own.
type feed struct {
	s      *Server
	conn   net.Conn
	stream Stream
	id     string // of the request
	actor  string
	trace  string // the id of the trace; "" for none
	start  time.Time
	// logged says that the access log has the request, and is to have its end.
	logged bool
	sent   int64
}

// baseKey finds, in the context of a request, the context that ends when the
// server cuts off what is still open.
type baseKey struct{}

// startFeed sends the head of the answer and starts a feed, which closes the
// stream and calls done at its end.
func (s *Server) startFeed(c *call, stream Stream, done func()) {
	base, ok := c.r.Context().Value(baseKey{}).(context.Context)
	if !ok { // there is no connection: a test asks the handler
		defer done()
		defer stream.Close()
		c.w.WriteHeader(http.StatusOK)
		_ = pump(c.r.Context(), stream, func() error {
			_, err := stream.WriteTo(c.w)
			return errors.Join(err, http.NewResponseController(c.w).Flush())
		})
		return
	}
	f := &feed{s: s, stream: stream, id: c.id, actor: c.actor(), trace: c.traceID(), start: time.Now()}
	h := c.w.Header()
	h["Connection"] = []string{"close"}
	h["Date"] = []string{time.Now().UTC().Format(http.TimeFormat)}
	var head bytes.Buffer // into which writing cannot fail
	head.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(&head)
	head.WriteString("\r\n")
	var err error
	if f.conn, _, err = http.NewResponseController(c.w).Hijack(); err == nil {
		if mine, ok := f.conn.(*conn); ok {
			mine.place.unlist()
		}
		shrink(f.conn)
		if _, err = f.conn.Write(head.Bytes()); err != nil {
			f.conn.Close()
		}
	}
	if err != nil { // he has gone already
		stream.Close()
		done()
		return
	}
	f.logged = c.inSample()
	s.arrive()
	go f.run(base, done)
}

// feedBuffer is what the system may hold of what a reader has not taken yet, in
// bytes (Linux doubles it): left to itself it would let it grow to megabytes for
// each of those who read nothing.
const feedBuffer = 32 << 10

func shrink(c net.Conn) {
	mine, ok := c.(*conn)
	if !ok {
		return
	}
	nc := mine.Conn
	for {
		outer, ok := nc.(interface{ NetConn() net.Conn }) // TLS, and what a listener wraps
		if !ok {
			break
		}
		nc = outer.NetConn()
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(feedBuffer) // it works without, at a higher price
	}
}

// run writes the stream to its end.
func (f *feed) run(base context.Context, done func()) {
	defer f.s.depart()
	defer done()
	defer f.stream.Close()
	defer func() {
		if p := recover(); p != nil {
			f.s.metrics.panics.Inc()
			f.s.log.Error("stream panicked", requestIDs(f.id, f.trace), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithCancel(base)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer f.conn.Close()
	// What is cut off may be in the middle of a write.
	defer context.AfterFunc(ctx, func() { f.conn.Close() })()
	reader.Go(func() {
		defer cancel()
		drop(f.conn)
	})
	err := pump(ctx, f.stream, f.write)
	level := slog.LevelDebug
	if f.logged {
		level = slog.LevelInfo
	}
	f.s.log.Log(base, level, "stream ended", requestIDs(f.id, f.trace), "duration", time.Since(f.start), "bytes", f.sent, "actor", f.actor, "err", err)
}

// pump has everything written that the stream has to tell, until it ends or its
// reader does. Where the stream ends in an error, the caller comes back with his
// cursor and is told then.
func pump(ctx context.Context, stream Stream, write func() error) error {
	for {
		if err := stream.Wait(ctx); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := write(); err != nil {
			return err
		}
	}
}

// feedBuffers gather small messages. Nobody keeps one while he waits for the next.
var feedBuffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4<<10) }}

// write writes what there is. It returns an error where it is not taken in time,
// see conn.
func (f *feed) write() error {
	b := feedBuffers.Get().(*bufio.Writer)
	defer feedBuffers.Put(b)
	b.Reset(f.conn)
	defer b.Reset(nil)
	n, err := f.stream.WriteTo(b)
	f.sent += n
	if err != nil {
		return err
	}
	return b.Flush()
}

// drop reads from a connection until it ends: who follows a stream has nothing
// more to say.
func drop(conn net.Conn) {
	var b [64]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			return
		}
	}
}
