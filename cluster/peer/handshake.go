package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/muster-registry/muster/wire"
)

// A handshake is three messages of one form: the dialler's hello, the acceptor's
// hello or refusal, the dialler's verdict on it. Where the cluster has a key all of
// it is encrypted and each hello follows a proof (see sealer). The form is the magic, the
// version of the protocol, a byte that is the kind of the connection in the first
// message and the verdict in the others, and a body with its length. It stays
// the same in every version, so that versions can refuse each other in words.
const (
	magic           = "muster"
	protocolVersion = 1
	headLen         = len(magic) + 4
	maxHelloBody    = 4 << 10

	verdictWelcome = 0
	verdictRefused = 1
)

var errNotMuster = errors.New("no hello of a muster node")

type message struct {
	version byte
	what    byte // Kind or verdict
	body    []byte
}

func writeMessage(w io.Writer, what byte, body []byte) error {
	if len(body) > maxHelloBody {
		return fmt.Errorf("%w: %d bytes", errBadHello, len(body))
	}
	b := make([]byte, 0, headLen+len(body))
	b = append(b, magic...)
	b = append(b, protocolVersion, what)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

func readMessage(r io.Reader) (message, error) {
	var head [headLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return message{}, err
	}
	if string(head[:len(magic)]) != magic {
		return message{}, errNotMuster
	}
	m := message{version: head[len(magic)], what: head[len(magic)+1]}
	size := int(binary.BigEndian.Uint16(head[len(magic)+2:]))
	if size > maxHelloBody {
		return message{}, fmt.Errorf("%w: %d bytes", errBadHello, size)
	}
	m.body = make([]byte, size)
	_, err := io.ReadFull(r, m.body)
	return m, err
}

// greet is the dialler's side of the handshake. want is the node id that must be
// there, "" for any.
func (p *Port) greet(ctx context.Context, c *conn, kind Kind, want string, deadline time.Time) (Hello, error) {
	if err := c.Conn.SetDeadline(deadline); err != nil {
		return Hello{}, err
	}
	own, err := p.cfg.Self().encode()
	if err != nil {
		return Hello{}, err
	}
	nc, sess, err := p.seals.dial(ctx, c.Conn)
	if err != nil {
		return Hello{}, err
	}
	c.seal(nc)
	if err := writeMessage(nc, byte(kind), sess.prove(sideDialler, byte(kind), own)); err != nil {
		return Hello{}, fmt.Errorf("saying hello: %w", err)
	}
	answer, err := readMessage(nc)
	if err != nil {
		return Hello{}, fmt.Errorf("waiting for a hello: %w", err)
	}
	if answer.what != verdictWelcome {
		refused, err := decodeRefusal(answer.body)
		if err != nil {
			return Hello{}, err
		}
		return Hello{}, refused
	}
	var remote Hello
	if answer.body, err = p.seals.verify(sess, sideAcceptor, answer.what, answer.body); err == nil {
		remote, err = p.judge(answer, kind, want)
	}
	if err != nil {
		refused := refusal(err)
		// Best effort: the peer learns why, or sees the connection end.
		_ = writeMessage(nc, verdictRefused, refused.encode())
		return remote, refused
	}
	if err := writeMessage(nc, verdictWelcome, nil); err != nil {
		return Hello{}, fmt.Errorf("ending the hello: %w", err)
	}
	return remote, nc.SetDeadline(time.Time{})
}

// judge decides whether the node that answered is welcome here.
func (p *Port) judge(answer message, kind Kind, want string) (Hello, error) {
	if answer.version != protocolVersion {
		return Hello{}, versionRefusal(answer.version)
	}
	remote, err := decodeHello(answer.body)
	if err != nil {
		return Hello{}, &RefusedError{Code: codeBadHello, Reason: err.Error()}
	}
	if err := p.cfg.Admit(remote, kind); err != nil {
		return remote, err
	}
	if want != "" && remote.NodeID != want {
		return remote, &RefusedError{Code: CodeWrongNode, Reason: fmt.Sprintf("asked for node %s, node %s is there", want, remote.NodeID)}
	}
	return remote, nil
}

func versionRefusal(got byte) error {
	return &RefusedError{Code: CodeBadVersion, Reason: fmt.Sprintf("peer protocol %d is spoken here, not %d", protocolVersion, got)}
}

// welcome is the acceptor's side. named is called with the remote's address as
// soon as it is known. A RefusedError with ByPeer unset has been told to the
// other side.
func (p *Port) welcome(c *conn, named func(addr string)) (Hello, Kind, error) {
	deadline := time.Now().Add(p.cfg.HandshakeTimeout)
	if err := c.Conn.SetDeadline(deadline); err != nil {
		return Hello{}, 0, err
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	nc, sess, err := p.seals.accept(ctx, c.Conn)
	if err != nil {
		return Hello{}, 0, err
	}
	c.seal(nc)
	first, err := readMessage(nc)
	if err != nil {
		return Hello{}, 0, err
	}
	var remote Hello
	kind := Kind(first.what)
	if first.body, err = p.seals.verify(sess, sideDialler, first.what, first.body); err == nil {
		remote, kind, err = p.weigh(first, named)
	}
	if err != nil {
		refused := refusal(err)
		_ = writeMessage(nc, verdictRefused, refused.encode())
		return remote, kind, refused
	}
	own, err := p.cfg.Self().encode()
	if err != nil {
		return remote, kind, err
	}
	if err := writeMessage(nc, verdictWelcome, sess.prove(sideAcceptor, verdictWelcome, own)); err != nil {
		return remote, kind, err
	}
	verdict, err := readMessage(nc)
	if err != nil {
		return remote, kind, err
	}
	if verdict.what != verdictWelcome {
		refused, err := decodeRefusal(verdict.body)
		if err != nil {
			return remote, kind, err
		}
		return remote, kind, refused
	}
	return remote, kind, nc.SetDeadline(time.Time{})
}

// weigh decides whether the node that dialled is welcome here.
func (p *Port) weigh(first message, named func(addr string)) (Hello, Kind, error) {
	kind := Kind(first.what)
	if first.version != protocolVersion {
		return Hello{}, kind, versionRefusal(first.version)
	}
	if kind != KindRaft && kind != KindRPC {
		return Hello{}, kind, &RefusedError{Code: CodeBadVersion, Reason: "this kind of connection is unknown here"}
	}
	remote, err := decodeHello(first.body)
	if err != nil {
		return Hello{}, kind, &RefusedError{Code: codeBadHello, Reason: err.Error()}
	}
	named(remote.Addr)
	if err := p.cfg.Admit(remote, kind); err != nil {
		return remote, kind, err
	}
	if p.inbound.Load() >= int64(p.cfg.MaxConns) {
		return remote, kind, &RefusedError{Code: CodeBusy, Reason: "too many connections"}
	}
	return remote, kind, nil
}

// refusalCode sorts the ways in which a handshake fails, for metrics and logs.
func refusalCode(err error) string {
	if r, ok := errors.AsType[*RefusedError](err); ok {
		switch r.Code {
		case CodeWrongCluster, CodeRemoved, CodeOldCopy, CodeDuplicateID, CodeBadVersion,
			CodeWrongNode, CodeNoKey, CodeWrongKey, CodeBusy, codeBadHello:
			return r.Code
		}
		return CodeRefused
	}
	switch {
	case errors.Is(err, errNotMuster):
		return codeNoMuster
	case errors.Is(err, errBadHello), errors.Is(err, wire.ErrMalformed):
		return codeBadHello
	case errors.Is(err, os.ErrDeadlineExceeded):
		return codeSilence
	}
	return codeBroken
}
