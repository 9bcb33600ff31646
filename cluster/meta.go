package cluster

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/muster-registry/muster/wire"
)

const (
	metaFormat = 1
	// metaRoom is how large a node's metadata is meant to be; memberlist panics on
	// more than metaLimit.
	metaRoom  = 300
	metaLimit = 512
)

// meta is what a node says of itself by gossip. It is a hint: what matters is
// asked again over the peer port before anything is done about it.
type meta struct {
	ClusterID string // "" while the node does not know
	PeerAddr  string
	APIAddr   string
	Name      string
	Zone      string
	Version   string
	Boot      uint64
	Expect    uint64
	// Level is the highest feature level the node knows.
	Level       uint64
	VoterWanted bool
	HasState    bool
	Leaving     bool
}

const (
	flagVoterWanted = 1 << iota
	flagHasState
	flagLeaving
)

// encode writes m into at most limit bytes, metaRoom of them if it can: what is
// only shown to people is shortened first.
func (m meta) encode(limit int) []byte {
	room := min(limit, metaRoom)
	for _, most := range []int{64, 24, 8, 0} {
		m.Name, m.Zone, m.Version = clip(m.Name, max(16, most)), clip(m.Zone, most), clip(m.Version, most)
		if b := m.bytes(); len(b) <= room {
			return b
		}
	}
	if b := m.bytes(); len(b) <= limit {
		return b
	}
	m.APIAddr = ""
	if b := m.bytes(); len(b) <= limit {
		return b
	}
	return nil // New has refused such addresses
}

func (m *meta) bytes() []byte {
	out := message{metaFormat}
	out.string(1, m.ClusterID)
	out.string(2, m.PeerAddr)
	if host, port, err := net.SplitHostPort(m.APIAddr); err == nil && host == hostOf(m.PeerAddr) {
		out.string(3, ":"+port)
	} else {
		out.string(3, m.APIAddr)
	}
	out.string(4, m.Name)
	out.string(5, m.Zone)
	out.string(6, m.Version)
	out.uint(7, m.Boot)
	out.uint(8, m.Expect)
	out.uint(9, m.Level)
	flags := uint64(0)
	for flag, on := range map[uint64]bool{flagVoterWanted: m.VoterWanted, flagHasState: m.HasState, flagLeaving: m.Leaving} {
		if on {
			flags |= flag
		}
	}
	out.uint(10, flags)
	return out
}

// decodeMeta reads what another node says of itself.
func decodeMeta(b []byte) (meta, error) {
	m := meta{}
	if len(b) == 0 || len(b) > metaLimit {
		return m, fmt.Errorf("metadata of %d bytes", len(b))
	}
	if b[0] != metaFormat {
		return m, fmt.Errorf("metadata of unknown format %d", b[0])
	}
	var flags uint64
	err := wire.Each(b[1:], func(f wire.Number, v uint64, b []byte) error {
		switch f {
		case 1:
			m.ClusterID = shown(b)
		case 2:
			m.PeerAddr = string(b)
		case 3:
			m.APIAddr = string(b)
		case 4:
			m.Name = shown(b)
		case 5:
			m.Zone = shown(b)
		case 6:
			m.Version = shown(b)
		case 7:
			m.Boot = v
		case 8:
			m.Expect = v
		case 9:
			m.Level = v
		case 10:
			flags = v
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	m.VoterWanted, m.HasState, m.Leaving = flags&flagVoterWanted != 0, flags&flagHasState != 0, flags&flagLeaving != 0
	if !validAddr(m.PeerAddr) {
		return m, errors.New("metadata without a peer address")
	}
	if strings.HasPrefix(m.APIAddr, ":") {
		m.APIAddr = net.JoinHostPort(hostOf(m.PeerAddr), m.APIAddr[1:])
	}
	if m.APIAddr != "" && !validAddr(m.APIAddr) {
		return m, errors.New("metadata with a malformed API address")
	}
	return m, nil
}

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	return host
}

// clip shortens s to at most n bytes without cutting a character in two.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// shown makes text of another node fit to be logged and displayed.
func shown(b []byte) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(b), ""))
}
