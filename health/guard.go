package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// errForbidden is the cause of a probe that the guard has not let out.
var errForbidden = errors.New("is not a target the registry connects to")

// forbidden are the networks that no probe enters: they hold nothing that could
// register itself, or hand out secrets to whoever asks from inside.
var forbidden = func() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range [...]string{
		"0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", // unspecified, link-local, multicast, reserved
		"100.100.100.200/32", "168.63.129.16/32", "192.0.0.0/24", // metadata of clouds that is not link-local
		"::/128", "fe80::/10", "fec0::/10", "ff00::/8",
		"fd00:ec2::/64", "fd20:ce::254/128", // metadata over IPv6
		"2001::/32", // Teredo: an IPv4 address in disguise
	} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}()

// embedded are IPv6 networks whose addresses stand for an IPv4 address, at that
// byte: it is judged in their stead.
var embedded = []struct {
	net netip.Prefix
	at  int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},   // NAT64
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12}, // NAT64, local use
	{netip.MustParsePrefix("2002::/16"), 2},       // 6to4
	{netip.MustParsePrefix("::/96"), 12},          // IPv4-compatible
}

// GuardConfig says where a Guard stands.
type GuardConfig struct {
	// Loopback allows targets on loopback: only for a node that is itself bound to
	// loopback and nowhere else.
	Loopback bool
	// Own returns the addresses ("host:port") of the registry's own ports, those
	// of its other nodes included; it is asked about once a second while there are
	// probes. nil: there are none.
	Own func() []string
	// Resolver looks names up; nil is the system's.
	Resolver *net.Resolver
	// Faults is the seam of tests; nil in production.
	Faults *Faults
}

// Guard makes the connections of probes and refuses forbidden targets. It looks
// at an address after DNS, right before the connection is made, so that a name
// that changes between two look-ups does not help. It is safe for concurrent use.
type Guard struct {
	cfg GuardConfig
	own atomic.Pointer[ownPorts]
}

// NewGuard returns a guard.
func NewGuard(cfg GuardConfig) *Guard { return &Guard{cfg: cfg} }

// ownPorts are the ports on which the registry listens.
type ownPorts struct {
	at    time.Time
	ports map[uint16]bool
	hosts map[netip.Addr]bool
	// named: a node is known by name only, so that its ports are refused on every
	// host.
	named bool
}

const ownPortsFor = time.Second

func (g *Guard) ownPorts() *ownPorts {
	if o := g.own.Load(); o != nil && time.Since(o.at) < ownPortsFor {
		return o
	}
	o := &ownPorts{at: time.Now(), ports: make(map[uint16]bool), hosts: make(map[netip.Addr]bool)}
	if g.cfg.Own != nil {
		for _, s := range g.cfg.Own() {
			o.add(s)
		}
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				o.hosts[p.Addr().Unmap()] = true
			}
		}
	}
	g.own.Store(o)
	return o
}

func (o *ownPorts) add(s string) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		o.ports[ap.Port()] = true
		o.hosts[ap.Addr().Unmap()] = true
		return
	}
	_, service, err := net.SplitHostPort(s)
	if err != nil {
		return
	}
	if port, err := net.LookupPort("tcp", service); err == nil {
		o.ports[uint16(port)] = true
		o.named = true
	}
}

// Check says why a probe may not connect to that address; nil where it may.
func (g *Guard) Check(to netip.AddrPort) error {
	ip := to.Addr()
	if ip.Zone() != "" {
		return fmt.Errorf("%s %w: it is of one link", to, errForbidden)
	}
	ip = ip.Unmap()
	if ip != netip.IPv6Loopback() {
		for _, e := range embedded {
			if b := ip.AsSlice(); e.net.Contains(ip) {
				ip = netip.AddrFrom4([4]byte(b[e.at : e.at+4]))
				break
			}
		}
	}
	for _, p := range forbidden {
		if p.Contains(ip) {
			return fmt.Errorf("%s %w: it is in %s", to, errForbidden, p)
		}
	}
	if !ip.IsValid() || to.Port() == 0 {
		return fmt.Errorf("%s %w", to, errForbidden)
	}
	if ip.IsLoopback() && !g.cfg.Loopback {
		return fmt.Errorf("%s %w: it is this machine, and the node serves others", to, errForbidden)
	}
	if o := g.ownPorts(); o.ports[to.Port()] && (o.named || ip.IsLoopback() || o.hosts[ip]) {
		return fmt.Errorf("%s %w: it is a port of the registry's", to, errForbidden)
	}
	return nil
}

// dial connects to "host:port". admit, which may be nil, is asked about the
// address after DNS as well.
func (g *Guard) dial(ctx context.Context, address string, admit func(netip.Addr) error) (net.Conn, error) {
	d := net.Dialer{
		Resolver:      g.cfg.Resolver,
		FallbackDelay: -1, // one connection at a time
		KeepAlive:     -1,
		ControlContext: func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(resolved)
			if err != nil {
				return fmt.Errorf("%s %w", resolved, errForbidden)
			}
			if err := g.Check(to); err != nil || admit == nil {
				return err
			}
			return admit(to.Addr().Unmap())
		},
	}
	if err := g.cfg.Faults.pass(ctx, address); err != nil {
		return nil, err
	}
	return d.DialContext(ctx, "tcp", address)
}
