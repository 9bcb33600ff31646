package peer

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

// KeySize is the length of a cluster key in bytes.
const KeySize = 32

const (
	proofSize     = sha256.Size
	exporterLabel = "EXPORTER-muster-peer"
	recordType    = 0x16 // the first byte of a TLS client
)

// sealer encrypts the connections of a port that has keys, and proves on each that
// both sides have the same.
//
// A connection is TLS 1.3 between certificates made up for the moment, which by
// themselves prove nothing. The proof is an HMAC under the cluster key over what
// both sides export from this very TLS session (RFC 5705, as RFC 9266 does for
// channel binding): who sits in between holds two sessions, whose exports differ,
// and cannot turn the proof for one into a proof for the other. It goes in front of
// each hello and covers it, and nothing that a stranger says is read before.
type sealer struct {
	keys [][]byte // the first is used, any is accepted
	tls  *tls.Config
}

// newSealer returns nil where there are no keys.
func newSealer(keys [][]byte) (*sealer, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	for _, k := range keys {
		if len(k) != KeySize {
			return nil, fmt.Errorf("peer port: a cluster key of %d bytes, not %d", len(k), KeySize)
		}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("peer port: making a key pair: %w", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("peer port: making a certificate: %w", err)
	}
	return &sealer{keys: keys, tls: &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"muster-peer"},
		InsecureSkipVerify:     true, // the certificate proves nothing: the proof of the key does
		SessionTicketsDisabled: true,
	}}, nil
}

// session is one sealed connection.
type session struct {
	binding []byte // exported from its TLS session
	key     []byte // the one that the dialler uses; nil on the acceptor until it is known
}

var (
	errTheyHaveNoKey = &RefusedError{Code: CodeNoKey, Reason: "it has no cluster key: start it with the --cluster-key-file of this cluster"}
	errWeHaveNoKey   = &RefusedError{Code: CodeNoKey, Reason: "it asks for a cluster key and this node has none: start it with --cluster-key-file"}
	errWrongKey      = &RefusedError{Code: CodeWrongKey, Reason: "its cluster key is not the one of this node: give all nodes the same --cluster-key-file"}
)

// dial seals a connection that was dialled. Without keys it is nc itself.
func (s *sealer) dial(ctx context.Context, nc net.Conn) (net.Conn, *session, error) {
	if s == nil {
		return nc, nil, nil
	}
	c := tls.Client(nc, s.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && string(plain.RecordHeader[:]) == magic[:len(plain.RecordHeader)] {
			return nil, nil, errTheyHaveNoKey
		}
		return nil, nil, fmt.Errorf("encrypting: %w", err)
	}
	sess, err := s.session(c)
	if sess != nil {
		sess.key = s.keys[0]
	}
	return c, sess, err
}

// accept seals a connection that was accepted. Without keys it is nc itself, with
// what was read of it put back. Where one side has keys and the other has not, both
// are told.
func (s *sealer) accept(ctx context.Context, nc net.Conn) (net.Conn, *session, error) {
	first := make([]byte, 1)
	if _, err := io.ReadFull(nc, first); err != nil {
		return nil, nil, err
	}
	back := &putBack{Conn: nc, first: first}
	switch {
	case s == nil && first[0] == recordType:
		// What dialled takes any answer in the clear for just that.
		_ = writeMessage(nc, verdictRefused, errTheyHaveNoKey.encode())
		return nil, nil, errWeHaveNoKey
	case s == nil:
		return back, nil, nil
	case first[0] == magic[0]:
		_ = writeMessage(nc, verdictRefused, errWeHaveNoKey.encode())
		return nil, nil, errTheyHaveNoKey
	}
	c := tls.Server(back, s.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, nil, fmt.Errorf("encrypting: %w", err)
	}
	sess, err := s.session(c)
	return c, sess, err
}

func (s *sealer) session(c *tls.Conn) (*session, error) {
	state := c.ConnectionState()
	binding, err := state.ExportKeyingMaterial(exporterLabel, nil, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("binding the key to the connection: %w", err)
	}
	return &session{binding: binding}, nil
}

// putBack is a connection of which a byte has been read.
type putBack struct {
	net.Conn
	first []byte
}

func (p *putBack) Read(b []byte) (int, error) {
	if len(p.first) > 0 && len(b) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// The sides of a proof, so that one cannot be sent back as the other's.
const (
	sideDialler  = 'd'
	sideAcceptor = 'a'
)

func proof(key []byte, side, what byte, binding, hello []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte{side, what})
	h.Write(binding)
	h.Write(hello)
	return h.Sum(nil)
}

// prove puts the proof in front of a hello; without a session there is none.
func (e *session) prove(side, what byte, hello []byte) []byte {
	if e == nil {
		return hello
	}
	return append(proof(e.key, side, what, e.binding, hello), hello...)
}

// verify takes the proof off a hello. The acceptor learns here which key counts.
func (s *sealer) verify(e *session, side, what byte, body []byte) (hello []byte, err error) {
	if e == nil {
		return body, nil
	}
	if len(body) < proofSize {
		return nil, errWrongKey
	}
	given, hello := body[:proofSize], body[proofSize:]
	keys := s.keys
	if e.key != nil {
		keys = [][]byte{e.key}
	}
	for _, k := range keys {
		if hmac.Equal(given, proof(k, side, what, e.binding, hello)) {
			e.key = k
			return hello, nil
		}
	}
	return nil, errWrongKey
}
