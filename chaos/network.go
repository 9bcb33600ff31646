package chaos

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// network is hosts on one switch, each in a network namespace of its own; the clients
// of this process reach them over a link from the switch. A link is made worse by
// rules on the host that receives, of which each names what is lost of whom.
type network struct {
	hub, root *host
	subnet    netip.Prefix // the clients have its address 254

	mu    sync.Mutex
	rules map[*host][]string // guarded by mu
	slows map[*host]bool     // guarded by mu: whose link is slow
}

// newNetwork makes a network without hosts, or says why none can be made here.
func newNetwork() (n *network, err error) {
	for _, tool := range []string{"ip", "tc", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("the command %s is missing (packages iproute2 and nftables): %w", tool, err)
		}
	}
	n = &network{rules: map[*host][]string{}, slows: map[*host]bool{}}
	if n.subnet, err = freeSubnet(); err != nil {
		return nil, err
	}
	if n.root, err = newHost("clients", n.address(254), nil); err != nil {
		return nil, err
	}
	if n.hub, err = newHost("switch", "", apart); err != nil {
		n.root.close()
		return nil, err
	}
	if err = n.uplink(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// freeSubnet finds 256 addresses that no interface here has.
func freeSubnet() (netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("looking at the interfaces: %w", err)
	}
	for range 1000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + rand.IntN(128)), byte(rand.IntN(256)), 0}), 24)
		used := false
		for _, a := range addrs {
			if in, err := netip.ParsePrefix(a.String()); err == nil && in.Overlaps(p) {
				used = true
			}
		}
		if !used {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no 256 addresses of 10.64.0.0/9 are free")
}

func (n *network) address(last byte) string {
	a := n.subnet.Addr().As4()
	a[3] = last
	return netip.AddrFrom4(a).String()
}

// uplink makes the switch and the clients' link to it.
func (n *network) uplink() error {
	clients, err := networkOf(n.root)
	if err != nil {
		return err
	}
	link := fmt.Sprintf("mch%d", os.Getpid())
	err = n.hub.commands(
		"ip link add br0 type bridge",
		"ip link set br0 up",
		"ip link add up0 type veth peer name "+link+" netns "+clients,
		"ip link set up0 master br0 up",
	)
	if err != nil {
		return err
	}
	return n.root.commands(
		"ip addr add "+n.root.addr+"/24 dev "+link,
		"ip link set "+link+" up",
	)
}

// add joins a host to the network, at the address that ends in place.
func (n *network) add(name string, place byte) (*host, error) {
	h, err := newHost(name, n.address(place), apart)
	if err != nil {
		return nil, err
	}
	if err := n.connect(h, fmt.Sprintf("p%d", place)); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// connect plugs a host into that port of the switch.
func (n *network) connect(h *host, port string) error {
	there, err := networkOf(h)
	if err != nil {
		return err
	}
	err = n.hub.commands(
		"ip link add "+port+" type veth peer name eth0 netns "+there,
		"ip link set "+port+" master br0 up",
	)
	if err != nil {
		return err
	}
	return h.commands(
		"ip addr add "+h.addr+"/24 dev eth0",
		"ip link set eth0 up",
		"ip link set lo up",
	)
}

// lose adds rules to a host, of what it does not receive. A rule is a match of nft
// with %s for the sender's address; see the constants below.
func (n *network) lose(at, from *host, rules ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range rules {
		n.rules[at] = append(n.rules[at], fmt.Sprintf(r, from.addr))
	}
	return n.apply(at)
}

// forget has the next lose at a host begin anew.
func (n *network) forget(at *host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rules[at] = nil
}

// slow lets what a host sends wait in a queue that is emptied slowly, up to half a
// second.
func (n *network) slow(h *host) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.slows[h] = true
	return h.commands("tc qdisc replace dev eth0 root tbf rate 1mbit burst 4kb latency 500ms")
}

// heal takes all rules and slowness from a host.
func (n *network) heal(h *host) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.slows[h] {
		delete(n.slows, h)
		if err := h.commands("tc qdisc del dev eth0 root"); err != nil {
			return err
		}
	}
	if len(n.rules[h]) == 0 {
		return nil
	}
	delete(n.rules, h)
	return n.apply(h)
}

// The rules there are. loseCalls loses what begins a TCP connection and lets all
// others pass; breakCalls ends the connections that the sender has begun to the
// ports of a node.
const (
	loseAll    = "ip saddr %s drop"
	loseCalls  = "ip saddr %s tcp flags & (syn|ack) == syn drop"
	breakCalls = "ip saddr %s tcp dport 7400-7402 tcp flags & syn == 0 reject with tcp reset"
)

// losing is the rule that loses so many in a hundred packets of a protocol: tcp, udp.
func losing(protocol string, percent int) string {
	return fmt.Sprintf("ip saddr %%s meta l4proto %s numgen random mod 100 < %d drop", protocol, percent)
}

// apply makes the rules of a host what they should be, in one step. The caller holds mu.
func (n *network) apply(h *host) error {
	text := "table ip chaos\ndelete table ip chaos\n"
	if rules := n.rules[h]; len(rules) > 0 {
		text += "table ip chaos {\n chain in {\n  type filter hook input priority 0; policy accept;\n  " +
			strings.Join(rules, "\n  ") + "\n }\n}\n"
	}
	return h.command(text, "nft", "-f", "-")
}

// close ends the switch and the clients' link; the hosts are the caller's.
func (n *network) close() {
	n.hub.close()
	n.root.close()
}
