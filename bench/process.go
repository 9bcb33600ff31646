package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is a node that was started here.
type process struct {
	command func(args ...string) *exec.Cmd
	args    []string
	log     string // file
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended
}

// Start starts three processes as one cluster on loopback, in a temporary directory,
// and returns when all of them serve. Stop ends it.
func Start(ctx context.Context, command func(args ...string) *exec.Cmd) (*Cluster, error) {
	const count = 3
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	c := &Cluster{owned: true, dir: dir}
	if err := c.start(ctx, command, count); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, command func(args ...string) *exec.Cmd, count int) error {
	ports, err := FreePorts(3 * count)
	if err != nil {
		return err
	}
	var seeds []string
	for n := range count {
		seeds = append(seeds, ports[3*n+2])
	}
	for n := range count {
		name := fmt.Sprintf("n%d", n+1)
		p := &process{command: command, log: filepath.Join(c.dir, name+".log"), args: []string{
			"server", "--name", name, "--data-dir", filepath.Join(c.dir, name), "--cluster-name", "bench", "--log-level", "warn",
			"--api-addr", ports[3*n], "--peer-addr", ports[3*n+1], "--gossip-addr", ports[3*n+2],
			"--bootstrap-expect", fmt.Sprint(count), "--join", strings.Join(seeds, ","),
			// A laptop's disk may be fuller than a server's should be.
			"--min-free-percent", "0",
		}}
		c.Nodes = append(c.Nodes, &Node{URL: "http://" + ports[3*n], proc: p})
		if err := p.start(); err != nil {
			return err
		}
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: newTransport(nil)}
	defer client.CloseIdleConnections()
	for _, n := range c.Nodes {
		if err := n.ready(ctx, client); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends the processes that Start has started, and removes their directory. Of a
// running cluster it does nothing.
func (c *Cluster) Stop() error {
	if !c.owned {
		return nil
	}
	for _, n := range c.Nodes {
		n.proc.kill()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("removing the temporary directory: %w", err)
	}
	return nil
}

// Kill ends the node's process by SIGKILL and returns when the signal was sent, and
// the process ended.
func (n *Node) Kill() (sent time.Time) {
	sent = time.Now()
	n.proc.kill()
	return sent
}

// Restart starts a killed node again, and waits until it serves.
func (n *Node) Restart(ctx context.Context, client *http.Client) error {
	if err := n.proc.start(); err != nil {
		return err
	}
	return n.ready(ctx, client)
}

// Pid is the id of the node's process; 0 where it was not started here.
func (n *Node) Pid() int {
	if n.proc == nil {
		return 0
	}
	return n.proc.cmd.Process.Pid
}

func (p *process) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening a log: %w", err)
	}
	defer log.Close() // the process has its own
	p.cmd = p.command(p.args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting a node: %w", err)
	}
	cmd, done := p.cmd, make(chan struct{})
	p.done = done
	go func() {
		_ = cmd.Wait() // it is killed in the end: how it ended says nothing
		close(done)
	}()
	return nil
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) kill() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended by itself
	<-p.done
}

// lastWords are the end of the log.
func (p *process) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// FreePorts finds n loopback addresses that are free for TCP and UDP, below the ports
// that systems give to outgoing connections: one of those could otherwise take the
// port of a node that is down for a moment.
func FreePorts(n int) ([]string, error) {
	var addrs []string
	var closers []io.Closer
	defer func() {
		for _, c := range closers {
			c.Close()
		}
	}()
	for tries := 0; len(addrs) < n; tries++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if err != nil {
			if tries > 1000 {
				return nil, fmt.Errorf("finding a free port: %w", err)
			}
			continue // in use
		}
		closers = append(closers, l)
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			continue // taken for UDP: try another
		}
		closers = append(closers, u)
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
