package health_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/health"
)

// canary listens on every address of this machine and counts who connects.
func canary(t *testing.T) (port int, connects *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	connects = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connects.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).Port, connects
}

// names is a DNS server that answers every question with the addresses of its
// table; "rebind.test" is public when asked first and loopback from then on.
func names(t *testing.T, table map[string][]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		asked := 0
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response = true
			q := m.Questions[0]
			host := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
			addrs := table[host]
			if host == "rebind.test" {
				if addrs = []string{"192.0.2.1"}; asked > 0 {
					addrs = []string{"127.0.0.1"}
				}
				asked++
			}
			m.Additionals = nil
			for _, s := range addrs {
				m.Answers = append(m.Answers, answerOf(q, netip.MustParseAddr(s))...)
			}
			if b, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func answerOf(q dnsmessage.Question, ip netip.Addr) []dnsmessage.Resource {
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 0}
	switch {
	case q.Type == dnsmessage.TypeA && ip.Is4():
		return []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: ip.As4()}}}
	case q.Type == dnsmessage.TypeAAAA && ip.Is6():
		return []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}}}
	}
	return nil
}

// forbiddenAddresses are at least 200 ways to name what no probe may reach.
func forbiddenAddresses() []string {
	all := []string{
		"127.0.0.1", "::1", "0.0.0.0", "::", "0.0.0.1", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::ffff:169.254.169.254", "::127.0.0.1", "::7f00:1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::",
		"169.254.169.254", "169.254.170.2", "169.254.0.1", "169.254.255.255", "fe80::1", "fe80::a9fe:a9fe", "febf::1", "fec0::1",
		"fd00:ec2::254", "fd00:ec2::23", "fd00:ec2::123", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.0.1",
		"224.0.0.1", "239.255.255.250", "ff02::1", "ff05::2", "ff0e::1", "240.0.0.1", "255.255.255.255",
	}
	for n := range 60 {
		all = append(all,
			fmt.Sprintf("127.%d.%d.%d", n*4, 255-n, n+1),
			fmt.Sprintf("169.254.%d.%d", n*4, n),
			fmt.Sprintf("::ffff:127.0.%d.1", n),
			fmt.Sprintf("fe80::%x", n*997+1),
		)
	}
	return all
}

// TestForbiddenTargets: no address, however it is written or looked up, gets a
// probe to connect where it must not, whatever the kind of check.
func TestForbiddenTargets(t *testing.T) {
	port, connects := canary(t)
	table := map[string][]string{}
	for n, a := range forbiddenAddresses() {
		table[fmt.Sprintf("h%d.test", n)] = []string{a}
	}
	table["many.test"] = []string{"127.0.0.1", "127.0.0.2", "::1", "169.254.169.254"}
	g := health.NewGuard(health.GuardConfig{Resolver: names(t, table)})
	vectors := forbiddenAddresses()
	for n := range forbiddenAddresses() {
		vectors = append(vectors, fmt.Sprintf("h%d.test", n))
	}
	vectors = append(vectors, "localhost", "many.test", "127.0.0.1.", "2130706433", "0x7f000001", "0177.0.0.1", "127.1")
	tried := 0
	for n, address := range vectors {
		c := muster.Check{Name: "c", Type: []muster.CheckType{muster.CheckHTTP, muster.CheckTCP, muster.CheckGRPC}[n%3]}
		i := &muster.Instance{Service: "web", ID: "web-1", Address: "192.0.2.1", Port: port, Checks: []muster.Check{c}}
		if err := i.Normalize(); err != nil {
			t.Fatal(err)
		}
		i.Address = address // as if validation had let it through
		i.Checks[0].Timeout = muster.Duration(500 * time.Millisecond)
		got := health.Probe(t.Context(), g, i, 0)
		tried++
		if got.Passed {
			t.Errorf("%s (%s): passed", address, c.Type)
		}
		literal, err := netip.ParseAddr(address)
		if known := err == nil || strings.HasSuffix(address, ".test") || address == "localhost"; known && got.Cause != muster.CheckForbidden {
			t.Errorf("%s %s (%s): got %+v", address, literal, c.Type, got)
		}
	}
	if tried < 200 {
		t.Errorf("only %d targets", tried)
	}
	if n := connects.Load(); n != 0 {
		t.Errorf("%d of %d probes connected", n, tried)
	}
}

// TestRebinding: a name that is harmless when it is looked at first does not lead
// elsewhere afterwards: what counts is the address that is connected to.
func TestRebinding(t *testing.T) {
	port, connects := canary(t)
	g := health.NewGuard(health.GuardConfig{Resolver: names(t, nil)})
	i := &muster.Instance{Service: "web", ID: "web-1", Address: "rebind.test", Port: port, Checks: []muster.Check{{Type: muster.CheckTCP}}}
	if err := i.Normalize(); err != nil {
		t.Fatal(err)
	}
	i.Checks[0].Timeout = muster.Duration(200 * time.Millisecond)
	for range 4 {
		if got := health.Probe(t.Context(), g, i, 0); got.Passed {
			t.Errorf("got %+v", got)
		}
	}
	if n := connects.Load(); n != 0 {
		t.Errorf("%d probes connected", n)
	}
}

// TestNoRedirect: a target cannot send a probe elsewhere, whatever its answer says
// and however the path looks.
func TestNoRedirect(t *testing.T) {
	port, connects := canary(t)
	asked := new(atomic.Int64)
	addr := httpServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		code, _ := strconv.Atoi(r.URL.Query().Get("code"))
		w.Header().Set("Location", fmt.Sprintf("http://127.0.0.1:%d/", port))
		w.Header().Set("Refresh", fmt.Sprintf("0; url=http://127.0.0.1:%d/", port))
		w.Header().Set("Alt-Svc", fmt.Sprintf(`h2="127.0.0.1:%d"`, port))
		if code == 0 {
			code = 200
		}
		w.WriteHeader(code)
	})
	t.Setenv("http_proxy", fmt.Sprintf("http://127.0.0.1:%d", port))
	t.Setenv("HTTP_PROXY", fmt.Sprintf("http://127.0.0.1:%d", port))
	t.Setenv("https_proxy", fmt.Sprintf("http://127.0.0.1:%d", port))
	g := health.NewGuard(health.GuardConfig{Loopback: true})
	paths := []string{
		fmt.Sprintf("//127.0.0.1:%d/", port), fmt.Sprintf("/@127.0.0.1:%d/", port), fmt.Sprintf("/..//127.0.0.1:%d/", port),
		fmt.Sprintf("/http://127.0.0.1:%d/", port), fmt.Sprintf("/?u=http://127.0.0.1:%d/", port), "/%0d%0aHost:%20evil", "/\\\\127.0.0.1/",
	}
	for _, code := range []int{300, 301, 302, 303, 305, 307, 308, 401, 407} {
		paths = append(paths, fmt.Sprintf("/?code=%d", code))
	}
	for _, p := range paths {
		got := health.Probe(t.Context(), g, at(addr, muster.Check{Type: muster.CheckHTTP, Path: p, Expect: "100-599"}), 0)
		if !got.Passed {
			t.Errorf("%s: got %+v", p, got)
		}
	}
	if n := connects.Load(); n != 0 || asked.Load() != int64(len(paths)) {
		t.Errorf("%d connects to another port, %d to the target", n, asked.Load())
	}
}

// TestOwnPorts: a check is not a way into the registry itself.
func TestOwnPorts(t *testing.T) {
	port, connects := canary(t)
	own := []string{fmt.Sprintf("127.0.0.1:%d", port), "10.1.1.1:7401"}
	g := health.NewGuard(health.GuardConfig{Loopback: true, Own: func() []string { return own }})
	addresses := []string{"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			addresses = append(addresses, netip.MustParsePrefix(a.String()).Addr().WithZone("").String())
		}
	}
	for _, a := range addresses {
		i := at(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, muster.Check{Type: muster.CheckTCP})
		i.Address = a
		if got := health.Probe(t.Context(), g, i, 0); got.Cause != muster.CheckForbidden {
			t.Errorf("%s: got %+v", a, got)
		}
	}
	if n := connects.Load(); n != 0 {
		t.Errorf("%d connects", n)
	}
	for to, refused := range map[string]bool{
		"10.1.1.1:7401": true, "10.1.1.1:8080": false, "10.1.1.2:7401": false, "10.1.1.1:" + strconv.Itoa(port): true, "127.0.0.1:8080": false,
	} {
		if err := g.Check(netip.MustParseAddrPort(to)); (err != nil) != refused {
			t.Errorf("%s: got %v", to, err)
		}
	}
	// A node that is known by name may be anywhere.
	named := health.NewGuard(health.GuardConfig{Own: func() []string { return []string{"node-1.example:7401"} }})
	if err := named.Check(netip.MustParseAddrPort("10.9.9.9:7401")); err == nil {
		t.Error("a port of a node known by name is open")
	}
	if err := named.Check(netip.MustParseAddrPort("10.9.9.9:8080")); err != nil {
		t.Errorf("another port: %v", err)
	}
}

// TestFaults: a cut way runs into the timeout, a healed one does not.
func TestFaults(t *testing.T) {
	addr := rawServer(t, func(c net.Conn) { _ = c.Close() })
	f := &health.Faults{}
	g := health.NewGuard(health.GuardConfig{Loopback: true, Faults: f})
	i := at(addr, muster.Check{Type: muster.CheckTCP, Timeout: muster.Duration(100 * time.Millisecond)})
	f.Cut(addr.String())
	if got := health.Probe(t.Context(), g, i, 0); got.Cause != muster.CheckTimeout {
		t.Errorf("cut: got %+v", got)
	}
	f.Heal(addr.String())
	if got := health.Probe(t.Context(), g, i, 0); !got.Passed {
		t.Errorf("healed: got %+v", got)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the node stops"))
	if got := health.Probe(ctx, g, i, 0); !got.Skipped {
		t.Errorf("a probe of a node that stops: got %+v", got)
	}
}
