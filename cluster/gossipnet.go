package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster/cluster/peer"
)

// gossipNet is memberlist's transport: UDP packets and TCP streams on one port.
// Unlike memberlist's own it binds without starting anything, ends its open
// streams when it ends, and asks the links of a test before it sends or takes
// anything.
type gossipNet struct {
	logger    *slog.Logger
	links     *peer.Links // nil in production
	tcp       *net.TCPListener
	udp       *net.UDPConn
	advertise *net.TCPAddr
	traffic   *traffic

	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
	wg      sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]struct{} // guarded by mu; nil once closed
}

// traffic counts the packets of the gossip. Streams, by which two nodes compare all
// they know every half a minute, are not among them.
type traffic struct{ packets, bytes *prometheus.CounterVec }

func newTraffic() *traffic {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_cluster_gossip_" + name, Help: help}, []string{"direction"})
	}
	t := &traffic{
		packets: counter("packets_total", "Packets of gossip, by direction."),
		bytes:   counter("packet_bytes_total", "Bytes of packets of gossip, by direction."),
	}
	for _, direction := range []string{"sent", "received"} {
		t.packets.WithLabelValues(direction)
		t.bytes.WithLabelValues(direction)
	}
	return t
}

func (t *traffic) sent(bytes int)     { t.count("sent", bytes) }
func (t *traffic) received(bytes int) { t.count("received", bytes) }

func (t *traffic) count(direction string, bytes int) {
	t.packets.WithLabelValues(direction).Inc()
	t.bytes.WithLabelValues(direction).Add(float64(bytes))
}

const maxGossipPacket = 64 << 10

// bindGossip binds both sockets of addr. With port 0 it takes a port that is free
// for both.
func bindGossip(addr string, links *peer.Links, logger *slog.Logger) (*gossipNet, error) {
	g := &gossipNet{
		logger: logger, links: links, traffic: newTraffic(),
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), closed: make(chan struct{}),
		open: make(map[net.Conn]struct{}),
	}
	var err error
	for range 10 {
		if err = g.bind(addr); err == nil || portOf(addr) != 0 {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("binding the gossip address: %w", err)
	}
	return g, nil
}

func (g *gossipNet) bind(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	g.tcp = l.(*net.TCPListener)
	at := l.Addr().(*net.TCPAddr)
	g.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port, Zone: at.Zone})
	if err != nil {
		l.Close()
		return err
	}
	g.advertise = at
	return nil
}

func portOf(addr string) int {
	_, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return n
}

// How long the advertised host is looked up, and how long is waited between.
const (
	resolveFor   = 30 * time.Second
	resolveFirst = 250 * time.Millisecond
	resolveMost  = 5 * time.Second
)

// setAdvertise resolves the host that others reach this node at. memberlist deals
// in IP addresses only. Where containers start together the name may not be there yet:
// it is looked up again for a while, and trying is told why not.
func (g *gossipNet) setAdvertise(ctx context.Context, host string, trying func(error)) error {
	at := g.tcp.Addr().(*net.TCPAddr)
	if host == "" && !at.IP.IsUnspecified() {
		return nil
	}
	if host == "" {
		return fmt.Errorf("%s is no address others can reach: set --advertise", at.IP)
	}
	var ips []net.IP
	var err error
	wait := resolveFirst
	for end := time.Now().Add(resolveFor); ; wait = min(2*wait, resolveMost) {
		if ips, err = net.DefaultResolver.LookupIP(ctx, "ip", host); err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().Add(wait).After(end) {
			return fmt.Errorf("--advertise %s does not resolve, for %s by now: %w", host, resolveFor, err)
		}
		trying(err)
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
	g.advertise = &net.TCPAddr{IP: ips[0], Port: at.Port}
	return nil
}

// start begins to receive. Shutdown ends it.
func (g *gossipNet) start() {
	g.wg.Go(g.receive)
	g.wg.Go(g.accept)
}

func (g *gossipNet) receive() {
	for {
		buf := make([]byte, maxGossipPacket)
		n, from, err := g.udp.ReadFrom(buf)
		if err != nil {
			if g.isClosed() {
				return
			}
			continue // a message of ICMP about a packet we sent
		}
		if n == 0 || g.blocked(from.String(), g.self()) {
			continue
		}
		g.traffic.received(n)
		select {
		case g.packets <- &memberlist.Packet{Buf: buf[:n:n], From: from, Timestamp: time.Now()}:
		case <-g.closed:
			return
		}
	}
}

func (g *gossipNet) accept() {
	const rest = 50 * time.Millisecond
	for {
		c, err := g.tcp.Accept()
		if err != nil {
			select {
			case <-g.closed:
				return
			case <-time.NewTimer(rest).C: // out of file descriptors: others will close
			}
			continue
		}
		if c = g.track(c, nil); c == nil {
			return
		}
		select {
		case g.streams <- c:
		case <-g.closed:
			c.Close()
			return
		}
	}
}

// blocked asks the links of a test. A stream comes from a port of its own, so
// those that dial are judged by where they go.
func (g *gossipNet) blocked(from, to string) bool { return g.links.Blocked(from, to) }

func (g *gossipNet) self() string { return g.advertise.String() }

func (g *gossipNet) isClosed() bool {
	select {
	case <-g.closed:
		return true
	default:
		return false
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (g *gossipNet) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	ip := g.advertise.IP
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return ip, g.advertise.Port, nil
}

// WriteTo implements memberlist.Transport.
func (g *gossipNet) WriteTo(b []byte, addr string) (time.Time, error) {
	if g.blocked(g.self(), addr) {
		return time.Now(), nil
	}
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return time.Time{}, err
	}
	if _, err = g.udp.WriteTo(b, to); err == nil {
		g.traffic.sent(len(b))
	}
	return time.Now(), err
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (g *gossipNet) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return g.WriteTo(b, a.Addr)
}

// PacketCh implements memberlist.Transport.
func (g *gossipNet) PacketCh() <-chan *memberlist.Packet { return g.packets }

// DialTimeout implements memberlist.Transport.
func (g *gossipNet) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	blocked := func() bool { return g.blocked(g.self(), addr) || g.blocked(addr, g.self()) }
	if blocked() {
		return nil, fmt.Errorf("dial %s: the link is cut", addr)
	}
	c, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, err
	}
	if c = g.track(c, blocked); c == nil {
		return nil, net.ErrClosed
	}
	return c, nil
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (g *gossipNet) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return g.DialTimeout(a.Addr, timeout)
}

// StreamCh implements memberlist.Transport.
func (g *gossipNet) StreamCh() <-chan net.Conn { return g.streams }

// Shutdown implements memberlist.Transport. It may be called more than once, and
// without start.
func (g *gossipNet) Shutdown() error {
	g.mu.Lock()
	open := g.open
	g.open = nil
	g.mu.Unlock()
	if open == nil {
		return nil
	}
	close(g.closed)
	err := errors.Join(g.tcp.Close(), g.udp.Close())
	for c := range open {
		err = errors.Join(err, c.(*gossipStream).Conn.Close())
	}
	g.wg.Wait()
	return err
}

// track keeps c to be closed by Shutdown; nil: it was closed already.
func (g *gossipNet) track(c net.Conn, blocked func() bool) net.Conn {
	s := &gossipStream{Conn: c, net: g, blocked: blocked}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		c.Close()
		return nil
	}
	g.open[s] = struct{}{}
	return s
}

// gossipStream is one exchange of state with another node.
type gossipStream struct {
	net.Conn
	net     *gossipNet
	blocked func() bool
}

// Write fails once a test has cut the link.
func (s *gossipStream) Write(b []byte) (int, error) {
	if s.blocked != nil && s.blocked() {
		return 0, errors.New("the link is cut")
	}
	return s.Conn.Write(b)
}

// Close implements net.Conn.
func (s *gossipStream) Close() error {
	s.net.mu.Lock()
	delete(s.net.open, s)
	s.net.mu.Unlock()
	return s.Conn.Close()
}
