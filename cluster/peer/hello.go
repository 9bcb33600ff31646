package peer

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Kind says what a connection is for.
type Kind byte

// The kinds of connections.
const (
	// KindRaft is a stream of raft's network transport.
	KindRaft Kind = 'r'
	// KindRPC carries internal calls.
	KindRPC Kind = 'c'
)

// String names the kind as it appears in logs and metrics.
func (k Kind) String() string {
	switch k {
	case KindRaft:
		return "raft"
	case KindRPC:
		return "rpc"
	}
	return "unknown"
}

// Hello is how a node introduces itself when a connection begins. It does not
// change while the connection lasts.
type Hello struct {
	// Cluster is the cluster's name.
	Cluster string
	// ClusterID is the cluster's id, "" while the node knows none.
	ClusterID string
	NodeID    string
	// Boot is how many times the node's data directory has been started.
	Boot uint64
	// Nonce is chosen at random by each process.
	Nonce uint64
	// Version is the build's.
	Version string
	// Addr is the node's advertised peer address.
	Addr string
}

// maxHelloString bounds each text of a hello and of a refusal.
const maxHelloString = 256

// The field numbers of an encoded Hello.
const (
	fieldCluster   protowire.Number = 1
	fieldClusterID protowire.Number = 2
	fieldNodeID    protowire.Number = 3
	fieldBoot      protowire.Number = 4
	fieldNonce     protowire.Number = 5
	fieldVersion   protowire.Number = 6
	fieldAddr      protowire.Number = 7
)

var errBadHello = errors.New("malformed hello")

// encode returns h in protobuf's wire format, or an error for a hello that the
// other side would refuse to read.
func (h Hello) encode() ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	var b []byte
	b = appendString(b, fieldCluster, h.Cluster)
	b = appendString(b, fieldClusterID, h.ClusterID)
	b = appendString(b, fieldNodeID, h.NodeID)
	b = appendUint(b, fieldBoot, h.Boot)
	b = appendUint(b, fieldNonce, h.Nonce)
	b = appendString(b, fieldVersion, h.Version)
	return appendString(b, fieldAddr, h.Addr), nil
}

// check refuses what could be neither addressed nor logged.
func (h Hello) check() error {
	for _, s := range []string{h.Cluster, h.ClusterID, h.NodeID, h.Version, h.Addr} {
		if len(s) > maxHelloString || s != printable(s, maxHelloString) {
			return fmt.Errorf("%w: a text is too long or not printable", errBadHello)
		}
	}
	if h.NodeID == "" || h.Cluster == "" {
		return fmt.Errorf("%w: it names no node or no cluster", errBadHello)
	}
	if _, _, err := net.SplitHostPort(h.Addr); err != nil {
		return fmt.Errorf("%w: its address is not host:port", errBadHello)
	}
	return nil
}

func decodeHello(b []byte) (Hello, error) {
	var h Hello
	err := eachField(b, func(num protowire.Number, text []byte, number uint64) error {
		switch num {
		case fieldCluster:
			h.Cluster = string(text)
		case fieldClusterID:
			h.ClusterID = string(text)
		case fieldNodeID:
			h.NodeID = string(text)
		case fieldBoot:
			h.Boot = number
		case fieldNonce:
			h.Nonce = number
		case fieldVersion:
			h.Version = string(text)
		case fieldAddr:
			h.Addr = string(text)
		}
		return nil
	})
	if err != nil {
		return Hello{}, err
	}
	return h, h.check()
}

// eachField calls fn for every field of a message, with the value as text or as
// a number according to its wire type. Fields of other types are skipped.
func eachField(b []byte, fn func(num protowire.Number, text []byte, number uint64) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errBadHello, protowire.ParseError(n))
		}
		b = b[n:]
		var text []byte
		var number uint64
		switch typ {
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", errBadHello, protowire.ParseError(n))
		}
		b = b[n:]
		if err := fn(num, text, number); err != nil {
			return err
		}
	}
	return nil
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// printable returns s without what could forge a line of a log, cut to size
// bytes. Texts of strangers go through it before they are shown.
func printable(s string, size int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	for len(s) > size {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// At joins a node id and a peer address into "id@host:port": that address, and
// there that node only. Where another node answers, a wiped one under its new id
// for instance, the dial or the call is refused with CodeWrongNode.
func At(id, addr string) string {
	if id == "" {
		return addr
	}
	return id + "@" + addr
}

// splitAt undoes At; id is "" for a bare address.
func splitAt(target string) (id, addr string) {
	id, addr, ok := strings.Cut(target, "@")
	if !ok {
		return "", target
	}
	return id, addr
}
