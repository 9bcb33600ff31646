package httpapi

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

// writePiece is what a client may take muster.WriteTimeout, or up to a tenth less, to
// accept.
const writePiece = 256 << 10

// conn is a connection of HTTP/1.1. It bounds every write by a deadline, so that
// a client that does not read is dropped however long its request may last, and
// it makes up for two things that net/http does before a handler is asked:
//
//   - it answers a request it cannot read by itself, in plain text: those answers
//     are turned into problems;
//   - it drops the Content-Length of a request that has a Transfer-Encoding too,
//     which is how requests are smuggled past a proxy: the head of each request
//     is watched for it as it goes by.
type conn struct {
	net.Conn
	s     *Server
	head  head
	place *place
	// handled says that a handler answers: what is written is then its own, however
	// it begins. Touched by whoever writes.
	handled bool
	// bounded is when the write deadline was set. Only one goroutine writes.
	bounded time.Time
}

// Read reads, and watches the head of the request.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.head.watch(p[:n])
	return n, err
}

// Write writes b, in pieces that each have their own deadline.
func (c *conn) Write(b []byte) (int, error) {
	if !c.handled {
		if own := c.translate(b); own != nil {
			if err := c.bound(); err != nil {
				return 0, err
			}
			if _, err := c.Conn.Write(own); err != nil {
				return 0, err
			}
			return len(b), nil
		}
	}
	for done := 0; ; {
		piece := b[done:min(len(b), done+writePiece)]
		if err := c.bound(); err != nil {
			return done, err
		}
		n, err := c.Conn.Write(piece)
		if done += n; err != nil || done == len(b) {
			return done, err
		}
	}
}

// Close closes it, and makes room for another.
func (c *conn) Close() error {
	if c.place.close() {
		c.s.metrics.connections.Dec()
	}
	return c.Conn.Close()
}

// bound sees to it that the next write has a deadline. One that was set within the
// last second is left, because setting it has its price.
func (c *conn) bound() error {
	now := time.Now()
	if now.Sub(c.bounded) < muster.WriteTimeout/10 {
		return nil
	}
	c.bounded = now
	return c.Conn.SetWriteDeadline(now.Add(muster.WriteTimeout))
}

// SetWriteDeadline does nothing: net/http would take the deadline off after every
// request, and nobody else but bound sets one.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline sets that of reads, for the same reason: net/http takes both off a
// connection that it gives away.
func (c *conn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }

// CloseWrite lets net/http end an answer to a client that is still sending.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// connState forgets the head of a request once it has been answered.
func connState(c net.Conn, state http.ConnState) {
	if mine, ok := c.(*conn); ok && state == http.StateIdle {
		mine.head, mine.handled = newHead(), false
	}
}

// head is what is remembered of the head of a request while it goes by. It is
// only touched by whoever reads the connection, and by the handler of a request
// whose body has not been read to its end, when nobody reads.
type head struct {
	inside bool // the blank line has not come yet
	unseen bool // nothing was read since the last answer
	lines  int  // lines that are complete
	start  [19]byte
	length int // of the line that is being read; start holds its beginning
	// hasLength and hasEncoding: such header lines were there.
	hasLength, hasEncoding bool
}

func newHead() head { return head{inside: true, unseen: true} }

func (h *head) watch(p []byte) {
	if len(p) > 0 {
		h.unseen = false
	}
	for h.inside && len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		line := p
		if end >= 0 {
			line = p[:end]
		}
		if h.length < len(h.start) {
			copy(h.start[h.length:], line)
		}
		h.length += len(line)
		if end < 0 {
			return
		}
		h.endLine()
		p = p[end+1:]
	}
}

func (h *head) endLine() {
	line := bytes.TrimSuffix(h.start[:min(h.length, len(h.start))], []byte("\r"))
	switch {
	case len(line) == 0 && h.lines > 0:
		h.inside = false
	case len(line) == 0: // a blank line before a request is passed over
	default:
		h.lines++
		h.hasLength = h.hasLength || hasPrefixFold(line, "content-length:")
		h.hasEncoding = h.hasEncoding || hasPrefixFold(line, "transfer-encoding:")
	}
	h.length = 0
}

func hasPrefixFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && bytes.EqualFold(b[:len(prefix)], []byte(prefix))
}

// connKey finds the conn in the context of a request.
type connKey struct{}

// checkFraming refuses a request with two lengths (RFC 9112 §6.3). Where its head
// came in together with the request before it, it was not seen, and the
// connection ends with the answer instead.
func (c *call) checkFraming() error {
	mine, ok := c.r.Context().Value(connKey{}).(*conn)
	if !ok {
		return nil
	}
	if mine.head.unseen {
		c.w.Header().Set("Connection", "close")
		return nil
	}
	if mine.head.hasLength && mine.head.hasEncoding {
		c.w.Header().Set("Connection", "close")
		return muster.Errorf(muster.CodeMalformedRequest, "the request has a Content-Length and a Transfer-Encoding")
	}
	return nil
}

// ownHeaders follow the status line of what net/http answers without a handler.
var ownHeaders = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// translate returns what is to be written instead of b, nil for b itself.
func (c *conn) translate(b []byte) []byte {
	if len(b) < 13 || b[9] < '4' || !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) {
		return nil
	}
	expectation := bytes.HasPrefix(b[9:], []byte("417"))
	if end := bytes.IndexByte(b, '\r'); !expectation && (end < 0 || !bytes.HasPrefix(b[end:], ownHeaders)) {
		return nil
	}
	var err *muster.Error
	switch string(b[9:12]) {
	case "431":
		err = muster.Errorf(muster.CodeHeadersTooLarge, "the request line and the headers are longer than %d bytes", muster.MaxHeaderBytes)
		if c.head.lines == 0 {
			err = muster.Errorf(muster.CodeURITooLong, "path and query are longer than %d bytes", muster.MaxURIBytes)
		}
	case "417":
		err = muster.Errorf(muster.CodeMalformedRequest, "Expect takes only 100-continue")
	case "501":
		err = muster.Errorf(muster.CodeMalformedRequest, "the Transfer-Encoding is not chunked")
	case "505":
		err = muster.Errorf(muster.CodeMalformedRequest, "the version of HTTP is not 1.0 or 1.1")
	default:
		err = muster.Errorf(muster.CodeMalformedRequest, "the request line or a header is not well-formed HTTP/1.1")
	}
	return c.s.refusal(err, c.RemoteAddr())
}

// refusal is a whole answer for a request that no handler sees.
func (s *Server) refusal(err *muster.Error, from net.Addr) []byte {
	id := s.newRequestID()
	p := problem.New(err, "", id)
	body := p.JSON()
	leader, _ := s.cluster.Leader()
	s.metrics.refused(p.Status)
	s.accessRefused(id, p, from)
	after := p.RetryAfter()
	var out bytes.Buffer
	fmt.Fprintf(&out, "HTTP/1.1 %d %s\r\n", p.Status, http.StatusText(p.Status))
	_ = http.Header{ // writing into memory cannot fail
		headerType: typeProblem, headerLength: {strconv.Itoa(len(body))}, "Connection": {"close"},
		headerCacheControl: noStore, headerSniff: noSniff,
		headerNode: s.node, headerLeader: {leader}, headerCluster: {s.cluster.ClusterID()}, headerRequestID: {id},
	}.Write(&out)
	if after != "" {
		out.WriteString(headerRetryAfter + ": " + after + "\r\n")
	}
	out.WriteString("\r\n")
	out.Write(body)
	return out.Bytes()
}
