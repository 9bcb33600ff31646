//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/health"
)

// namespaces are network namespaces on one switch, each with an address of its own.
type namespaces struct {
	t    *testing.T
	name string
}

func newNamespaces(t *testing.T, hosts int) *namespaces {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces are root's to make")
	}
	ns := &namespaces{t, fmt.Sprintf("mst%d", os.Getpid())}
	if out, err := exec.Command("ip", "netns", "add", ns.host(0)).CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %v %s", err, out)
	}
	t.Cleanup(func() { ns.ip("netns", "del", ns.host(0)) })
	ns.in(0, "link", "add", "br0", "type", "bridge")
	ns.in(0, "link", "set", "br0", "up")
	for h := 1; h <= hosts; h++ {
		ns.ip("netns", "add", ns.host(h))
		t.Cleanup(func() { ns.ip("netns", "del", ns.host(h)) })
		port := fmt.Sprintf("p%d", h)
		ns.ip("link", "add", "eth0", "netns", ns.host(h), "type", "veth", "peer", "name", port, "netns", ns.host(0))
		ns.in(0, "link", "set", port, "master", "br0", "up")
		ns.in(h, "addr", "add", ns.addr(h)+"/24", "dev", "eth0")
		ns.in(h, "link", "set", "eth0", "up")
		ns.in(h, "link", "set", "lo", "up")
	}
	return ns
}

func (ns *namespaces) host(h int) string { return fmt.Sprintf("%s-%d", ns.name, h) }
func (ns *namespaces) addr(h int) string { return fmt.Sprintf("10.77.13.%d", h) }

func (ns *namespaces) in(h int, args ...string) {
	ns.t.Helper()
	ns.ip(append([]string{"-n", ns.host(h)}, args...)...)
}

func (ns *namespaces) ip(args ...string) {
	ns.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		ns.t.Errorf("ip %s: %v %s", strings.Join(args, " "), err, out)
	}
}

// cut loses all that one host sends to another; heal undoes it.
func (ns *namespaces) cut(from, to int) {
	ns.t.Helper()
	ns.in(from, "neigh", "replace", ns.addr(to), "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "permanent")
}

func (ns *namespaces) heal(from, to int) {
	ns.t.Helper()
	ns.in(from, "neigh", "del", ns.addr(to), "dev", "eth0")
}

// within runs fn on a thread of that namespace, which ends with fn: what it opens
// stays there.
func (ns *namespaces) within(h int, fn func() error) error {
	f, err := os.Open(filepath.Join("/var/run/netns", ns.host(h)))
	if err != nil {
		return fmt.Errorf("opening a namespace: %w", err)
	}
	defer f.Close()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not to be used again
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("entering a namespace: %w", err)
			return
		}
		result <- fn()
	}()
	return <-result
}

// client talks HTTP from within the namespace of a host.
func (ns *namespaces) client(h int) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = ns.within(h, func() error {
				conn, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
}

// TestChecksAcrossNetworks has three nodes, each on a network of its own, probe a
// server on a fourth. One of the two nodes that probe it loses its way to it: the
// instance stays; the other loses it too: the instance goes; both find it again:
// it comes back. Nothing else happens to it.
func TestChecksAcrossNetworks(t *testing.T) {
	const target = 4
	ns := newNamespaces(t, target)
	var l net.Listener
	if err := ns.within(target, func() (err error) { l, err = net.Listen("tcp", ns.addr(target)+":8080"); return err }); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-served })

	nodes := make([]*process, 3)
	for n := range nodes {
		host := ns.addr(n + 1)
		nodes[n] = &process{t: t, url: "http://" + host + ":7400", within: []string{"ip", "netns", "exec", ns.host(n + 1)}, args: []string{
			"server", "--name", fmt.Sprintf("n%d", n+1), "--data-dir", t.TempDir(), "--insecure",
			"--api-addr", host + ":7400", "--peer-addr", host + ":7401", "--gossip-addr", host + ":7402",
			"--bootstrap-expect", "3", "--join", ns.addr(1) + ":7402," + ns.addr(2) + ":7402," + ns.addr(3) + ":7402",
		}}
		nodes[n].start()
		t.Cleanup(func() {
			nodes[n].signal(syscall.SIGKILL)
			nodes[n].wait()
			if t.Failed() {
				t.Logf("log of %s:\n%s", nodes[n].url, tail(nodes[n].log.String(), 40))
			}
		})
	}
	client := ns.client(1)
	get := func(path string, into any) bool {
		status, text, err := request(t.Context(), client, "GET", nodes[0].url+path, "")
		return err == nil && status == 200 && json.Unmarshal([]byte(text), into) == nil
	}
	wait := func(what string, cond func() bool) {
		t.Helper()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(patience); !cond(); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("waited %s for %s", patience, what)
			}
		}
	}
	body := fmt.Sprintf(`{"address":%q,"port":8080,"ttl":"none","checks":[{"name":"live","type":"http","interval":"1s","timeout":"500ms","fall":2}]}`, ns.addr(target))
	const path = "/v1/services/web/instances/web-1"
	wait("a registration", func() bool {
		status, _, err := request(t.Context(), client, "PUT", nodes[0].url+path, body)
		return err == nil && status < 300
	})
	var i muster.Instance
	is := func(s muster.Status) func() bool {
		return func() bool { i = muster.Instance{}; return get(path, &i) && i.Status == s }
	}
	wait("it to be up", is(muster.StatusUp))

	var c muster.Cluster
	wait("the members", func() bool { return get("/v1/cluster", &c) && len(c.Members) == 3 })
	var ids []string
	hostOf := map[string]int{}
	for _, m := range c.Members {
		ids = append(ids, m.ID)
		hostOf[m.ID] = slices.IndexFunc(nodes, func(p *process) bool { return p.url == "http://"+m.APIAddr }) + 1
	}
	who := health.Owners(ids, muster.InstanceKey{Namespace: "default", Service: "web", ID: "web-1"}, 0)

	ns.cut(hostOf[who[0]], target)
	wait("the disagreement to show", func() bool {
		if is(muster.StatusDown)() {
			t.Fatal("the opinion of one node took it out")
		}
		return i.Checks[0].Contested
	})
	ns.cut(hostOf[who[1]], target)
	wait("it to be down", is(muster.StatusDown))
	if got := i.Checks[0]; got.Cause != muster.CheckTimeout {
		t.Errorf("got %+v", got)
	}
	ns.heal(hostOf[who[0]], target)
	ns.heal(hostOf[who[1]], target)
	wait("it to be up again", is(muster.StatusUp))
	var answer muster.Events
	if !get("/v1/events?service=web", &answer) {
		t.Fatal("no events")
	}
	var causes []string
	for _, e := range answer.Events {
		causes = append(causes, string(e.Cause))
	}
	if got := strings.Join(causes, " "); got != "registered check_passed check_contested check_failed check_passed" {
		t.Errorf("events: %s", got)
	}
}
