package peer

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// linkState is what becomes of bytes in one direction of a link.
type linkState int

const (
	linkOpen linkState = iota
	// linkCut: they are on their way for ever, or until the link is healed.
	linkCut
	// linkRefused: dials are refused and connections are reset.
	linkRefused
)

// Links is a network that can be broken on purpose, for tests. Ports of one
// process share one; a link is a pair of advertised peer addresses and has two
// directions. The zero value breaks nothing. All methods may be called at any
// time from any goroutine, and take effect on open connections at once.
//
// A cut is a black hole as TCP knows it: what is written waits, an end of the
// connection is not noticed, and after healing everything arrives, unless one of
// the sides lost patience. It works on what a port reads, so both ends of a link
// must share the Links.
type Links struct {
	broken  atomic.Bool // whether there is any rule
	mu      sync.Mutex  // guards what follows
	rules   map[link]linkState
	changed chan struct{} // closed when rules change
	conns   map[*linkConn]struct{}
}

// link is a direction; "" is any address.
type link struct{ from, to string }

// Cut loses what goes from one address to the other. "" stands for all
// addresses.
func (l *Links) Cut(from, to string) { l.set(link{from, to}, linkCut) }

// Refuse refuses dials from one address to the other and resets the connections
// between them, as a dead process does. "" stands for all addresses.
func (l *Links) Refuse(from, to string) { l.set(link{from, to}, linkRefused) }

// Heal undoes Cut or Refuse with the same arguments.
func (l *Links) Heal(from, to string) { l.set(link{from, to}, linkOpen) }

// Isolate cuts everything to and from addr.
func (l *Links) Isolate(addr string) {
	l.Cut(addr, "")
	l.Cut("", addr)
}

// HealAll undoes everything.
func (l *Links) HealAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = nil
	l.announceLocked()
}

// Blocked reports whether what goes from one address to the other does not
// arrive. It is for transports that are not this package's. A nil Links blocks
// nothing.
func (l *Links) Blocked(from, to string) bool { return l.state(from, to) != linkOpen }

func (l *Links) set(k link, s linkState) {
	l.mu.Lock()
	if l.rules == nil {
		l.rules = make(map[link]linkState)
	}
	if s == linkOpen {
		delete(l.rules, k)
	} else {
		l.rules[k] = s
	}
	l.announceLocked()
	conns := slices.Collect(maps.Keys(l.conns))
	l.mu.Unlock()
	for _, c := range conns {
		c.resetIfRefused()
	}
}

func (l *Links) add(c *linkConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[*linkConn]struct{})
	}
	l.conns[c] = struct{}{}
}

func (l *Links) remove(c *linkConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *Links) announceLocked() {
	l.broken.Store(len(l.rules) > 0)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// state returns the worst that the rules say of a direction. An unknown address
// ("") is met by no rule that names one.
func (l *Links) state(from, to string) linkState {
	if l == nil || !l.broken.Load() {
		return linkOpen
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stateLocked(from, to)
}

func (l *Links) stateLocked(from, to string) linkState {
	return max(l.rules[link{from, to}], l.rules[link{from, ""}], l.rules[link{"", to}], l.rules[link{"", ""}])
}

// watch returns the state of a direction and a channel that is closed when it
// may have changed.
func (l *Links) watch(from, to string) (linkState, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.stateLocked(from, to), l.changed
}
