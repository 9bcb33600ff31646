package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/muster-registry/muster/bench"
)

// zkSystem is ZooKeeper by go-zookeeper: an instance is an ephemeral node, which goes
// with the session of the connection that made it; a service is its parent.
type zkSystem struct {
	nodes trio
	addrs []string
	conns [3][]*zk.Conn // by node
	made  sync.Map      // parents that are there
}

const zkJar = "/usr/share/java/zookeeper.jar"

func (z *zkSystem) name() string { return "ZooKeeper" }

func (z *zkSystem) version() string {
	named, err := filepath.Glob(strings.TrimSuffix(zkJar, ".jar") + "-[0-9]*.jar")
	if err != nil || len(named) == 0 {
		return "?"
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(named[0]), "zookeeper-"), ".jar") + ", heap of at most 512 MB"
}

func (z *zkSystem) missing() string {
	if _, err := exec.LookPath("java"); err != nil {
		return "apt-get install zookeeper (no java)"
	}
	if _, err := os.Stat(zkJar); err != nil {
		return "apt-get install zookeeper"
	}
	return ""
}

func (z *zkSystem) start(ctx context.Context, dir string) error {
	ports, err := bench.FreePorts(9)
	if err != nil {
		return err
	}
	var servers strings.Builder
	for n := range 3 {
		_, election, _ := net.SplitHostPort(ports[3+n])
		fmt.Fprintf(&servers, "server.%d=%s:%s\n", n+1, ports[n], election)
		z.addrs = append(z.addrs, ports[6+n])
	}
	for n := range 3 {
		home := filepath.Join(dir, fmt.Sprintf("n%d", n+1))
		_, port, _ := net.SplitHostPort(z.addrs[n])
		conf := fmt.Sprintf("tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=%s\nclientPort=%s\nclientPortAddress=127.0.0.1\n"+
			"maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n%s", home, port, &servers)
		if err := errors.Join(os.Mkdir(home, 0o700),
			os.WriteFile(filepath.Join(home, "myid"), fmt.Appendf(nil, "%d\n", n+1), 0o600),
			os.WriteFile(filepath.Join(home, "zoo.cfg"), []byte(conf), 0o600)); err != nil {
			return err
		}
		p := &proc{path: "java", log: filepath.Join(home, "log"), args: []string{
			"-Xmx512m", "-Dzookeeper.log.dir=" + home, "-Dzookeeper.root.logger=ERROR,CONSOLE",
			"-cp", "/etc/zookeeper/conf:" + zkJar, "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(home, "zoo.cfg"),
		}}
		z.nodes = append(z.nodes, p)
		if err := p.start(); err != nil {
			return err
		}
	}
	if _, err := z.leader(ctx); err != nil {
		return err
	}
	for n := range 3 {
		for range connections {
			c, _, err := zk.Connect([]string{z.addrs[n]}, 10*time.Second, zk.WithLogger(quiet{}), zk.WithHostProvider(&sameHost{addr: z.addrs[n]}))
			if err != nil {
				return err
			}
			z.conns[n] = append(z.conns[n], c)
		}
	}
	return z.parent("/services")
}

// quiet is a logger.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// sameHost has the client try its node again at once: of itself it waits a second,
// which would count as ZooKeeper's.
type sameHost struct{ addr string }

func (h *sameHost) Init([]string) error { return nil }
func (h *sameHost) Len() int            { return 1 }
func (h *sameHost) Connected()          {}
func (h *sameHost) Next() (string, bool) {
	time.Sleep(5 * time.Millisecond)
	return h.addr, false
}

func (z *zkSystem) stop() {
	z.nodes.stop()
	for _, some := range z.conns {
		for _, c := range some {
			c.Close()
		}
	}
}

func (z *zkSystem) at(client int) *zk.Conn { return z.conns[client%3][client/3%connections] }

var zkACL = zk.WorldACL(zk.PermAll)

// parent sees to it that a node is there.
func (z *zkSystem) parent(path string) error {
	if _, there := z.made.Load(path); there {
		return nil
	}
	_, err := z.conns[0][0].Create(path, nil, 0, zkACL)
	if err != nil && !errors.Is(err, zk.ErrNodeExists) {
		return err
	}
	z.made.Store(path, true)
	return nil
}

func (z *zkSystem) register(context.Context, int, int) error {
	return unsupported("a lease of its own is a session, and a session a connection: one for each instance is not how it is used")
}

func (z *zkSystem) registerShared(_ context.Context, client, n int) error {
	service := fmt.Sprintf("/services/shared-%d", n/100)
	if err := z.parent(service); err != nil {
		return err
	}
	_, err := z.at(client).Create(fmt.Sprintf("%s/i-%d", service, n), []byte(leasedValue), zk.FlagEphemeral, zkACL)
	return err
}

func (z *zkSystem) keepalive(context.Context, int, int) error {
	return unsupported("a ping renews a session, and the client sends it when it likes")
}

func (z *zkSystem) fill(context.Context) error {
	if err := z.parent("/services/filled"); err != nil {
		return err
	}
	for n := range 100 {
		if _, err := z.conns[0][0].Create(fmt.Sprintf("/services/filled/i-%d", n), []byte(leasedValue), 0, zkACL); err != nil {
			return err
		}
	}
	return nil
}

// read asks for the names alone: with the data it would be 101 requests.
func (z *zkSystem) read(_ context.Context, client int, linearizable bool) error {
	c := z.at(client)
	if linearizable {
		if _, err := c.Sync("/services/filled"); err != nil {
			return err
		}
	}
	names, _, err := c.Children("/services/filled")
	if err == nil && len(names) != 100 {
		err = fmt.Errorf("read %d of 100", len(names))
	}
	return err
}

// watch reads again after each event, as an event does not say what has changed.
func (z *zkSystem) watch(ctx context.Context, node int, told func()) (func(), error) {
	if err := z.parent("/services/watched"); err != nil {
		return nil, err
	}
	c := z.conns[node][0]
	if _, err := c.Sync("/services/watched"); err != nil {
		return nil, err
	}
	_, _, events, err := c.GetW("/services/watched")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-events:
			case <-ctx.Done():
				return
			}
			if _, _, events, err = c.GetW("/services/watched"); err != nil {
				return // the one who waits to be told gives up
			}
			told()
		}
	}()
	return func() { cancel(); <-ended }, nil
}

func (z *zkSystem) change(_ context.Context, node, n int) error {
	_, err := z.conns[node][0].Set("/services/watched", fmt.Appendf(nil, "%s %d", leasedValue, n), -1)
	return err
}

func (z *zkSystem) write(_ context.Context, node, n int) error {
	_, err := z.conns[node][n%connections].Set("/services/filled/i-0", []byte(leasedValue), -1)
	return err
}

// leader also waits until every node serves.
func (z *zkSystem) leader(ctx context.Context) (int, error) {
	found := 0
	err := until(ctx, "ZooKeeper's leader", func() bool {
		leaders := 0
		for n, addr := range z.addrs {
			switch mode := zkMode(addr); mode {
			case "leader":
				found = n
				leaders++
			case "follower":
			default:
				return false
			}
		}
		return leaders == 1
	})
	return found, err
}

// zkMode asks a node what part it plays; "" where it does not serve.
func zkMode(addr string) string {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	if err := errors.Join(c.SetDeadline(time.Now().Add(time.Second))); err != nil {
		return ""
	}
	if _, err := c.Write([]byte("srvr")); err != nil {
		return ""
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return ""
	}
	_, rest, _ := bytes.Cut(text, []byte("Mode: "))
	mode, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(mode)
}

func (z *zkSystem) kill(node int) time.Time { return z.nodes[node].kill() }

func (z *zkSystem) restart(ctx context.Context, node int) error {
	if err := z.nodes[node].start(); err != nil {
		return err
	}
	_, err := z.leader(ctx)
	return err
}

func (z *zkSystem) pids() []int { return z.nodes.pids() }
