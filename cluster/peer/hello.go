package peer

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/muster-registry/muster/wire"
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
	// Level is the highest feature level the node knows, ClusterLevel that of its
	// cluster.
	Level, ClusterLevel uint64
}

// maxHelloString bounds each text of a hello and of a refusal.
const maxHelloString = 256

// The field numbers of an encoded Hello.
const (
	fieldCluster   wire.Number = 1
	fieldClusterID wire.Number = 2
	fieldNodeID    wire.Number = 3
	fieldBoot      wire.Number = 4
	fieldNonce     wire.Number = 5
	fieldVersion   wire.Number = 6
	fieldAddr      wire.Number = 7
	fieldLevel     wire.Number = 8
	fieldCluLevel  wire.Number = 9
)

var errBadHello = errors.New("malformed hello")

// encode returns h in protobuf's wire format, or an error for a hello that the
// other side would refuse to read.
func (h Hello) encode() ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	var b []byte
	b = wire.AppendString(b, fieldCluster, h.Cluster)
	b = wire.AppendString(b, fieldClusterID, h.ClusterID)
	b = wire.AppendString(b, fieldNodeID, h.NodeID)
	b = wire.AppendUint(b, fieldBoot, h.Boot)
	b = wire.AppendUint(b, fieldNonce, h.Nonce)
	b = wire.AppendString(b, fieldVersion, h.Version)
	b = wire.AppendString(b, fieldAddr, h.Addr)
	b = wire.AppendUint(b, fieldLevel, h.Level)
	return wire.AppendUint(b, fieldCluLevel, h.ClusterLevel), nil
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
	err := wire.Each(b, func(num wire.Number, number uint64, text []byte) error {
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
		case fieldLevel:
			h.Level = number
		case fieldCluLevel:
			h.ClusterLevel = number
		}
		return nil
	})
	if err != nil {
		return Hello{}, err
	}
	return h, h.check()
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
