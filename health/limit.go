package health

import (
	"errors"
	"net/netip"
	"slices"
	"time"
)

// The bounds of what one target address is asked, by all nodes together.
const (
	targetRate     = 50 // probes a second
	targetInFlight = 8
)

// errThrottled says that a target's address has been asked enough just now.
var errThrottled = errors.New("this address is probed often enough")

// gate bounds the probes of one target address. It is guarded by the supervisor's
// mutex.
type gate struct {
	next    time.Time // no earlier probe
	running int
	waiting []*probe // whose turn came while the most were in flight
}

// share is this node's part of the bounds: each check has two owners among the
// probers, so that all of them together stay within.
func (s *Supervisor) share() (spacing time.Duration, inFlight int) {
	n := max(len(s.set.ids), 1)
	inFlight = targetInFlight / n
	if slices.Index(s.set.ids, s.deps.Raft.ID()) < targetInFlight%n { // the rest goes to the first
		inFlight++
	}
	return time.Second * time.Duration(n) / targetRate, max(inFlight, 1)
}

func (s *Supervisor) gate(address string) *gate {
	g := s.gates[address]
	if g == nil {
		g = &gate{}
		s.gates[address] = g
	}
	return g
}

// reserve takes the next free turn of a gate.
func (g *gate) reserve(now time.Time, spacing time.Duration) time.Time {
	turn := now
	if g.next.After(turn) {
		turn = g.next
	}
	g.next = turn.Add(spacing)
	return turn
}

// leave ends a probe and forgets a gate that nobody needs.
func (s *Supervisor) leave(address string, g *gate, now time.Time) {
	g.running--
	if g.running == 0 && len(g.waiting) == 0 && !g.next.After(now) {
		delete(s.gates, address)
	}
}

// sweepGates forgets the gates whose turns were given to probes that were never
// made.
func (s *Supervisor) sweepGates(now time.Time) {
	for address, g := range s.gates {
		if g.running == 0 && len(g.waiting) == 0 && !g.next.After(now) {
			delete(s.gates, address)
		}
	}
}

// admission lets a probe of a host name through to the address that the name
// turned out to have, or not: many names may lead to one address. The address is
// left when the probe ends.
type admission struct {
	s      *Supervisor
	passed []string
}

func (a *admission) admit(ip netip.Addr) error {
	s, key := a.s, ip.String()
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	spacing, most := s.share()
	g := s.gate(key)
	if g.running >= most || g.next.After(now) {
		return errThrottled
	}
	g.reserve(now, spacing)
	g.running++
	a.passed = append(a.passed, key)
	return nil
}

// leave is called with s.mu held.
func (a *admission) leave(now time.Time) {
	for _, key := range a.passed {
		if g := a.s.gates[key]; g != nil {
			a.s.leave(key, g, now)
		}
	}
}
