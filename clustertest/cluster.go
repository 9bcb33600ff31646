package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster/bench"
	"github.com/muster-registry/muster/cluster"
	"github.com/muster-registry/muster/cluster/peer"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/health"
	"github.com/muster-registry/muster/node"
)

// Patience is how long a Cluster waits for a state that must come.
const Patience = 90 * time.Second

// Cluster is a set of nodes on a network with faults.
type Cluster struct {
	t       testing.TB
	Members []*Member
	links   *peer.Links
	client  *http.Client
	mu      sync.Mutex // keeps Cut and Heal whole
}

// Member is one node of a Cluster, running or not.
type Member struct {
	Name   string
	Faults *cluster.Faults
	// OnApplied, if set before Start, is told what the node applies, on raft's
	// goroutine and before any stream is told of it; the node's State is then
	// exactly that.
	OnApplied func(fsm.Changes)
	// CheckFaults cuts the node off from targets of its checks.
	CheckFaults *health.Faults

	c      *Cluster
	cfg    node.Config
	node   *node.Node
	cancel context.CancelFunc
	done   chan struct{} // closed when Run has returned
	err    error         // of Run; read after done
	log    *logBuffer
}

// Option changes how a Cluster's nodes are configured.
type Option func(*node.Config)

// Profile sets the raft profile; the default is fast.
func Profile(p string) Option { return func(c *node.Config) { c.RaftProfile = p } }

// New prepares count nodes that know each other and starts none of them. They
// are stopped when the test ends, and their logs are shown if it failed.
func New(t testing.TB, count int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, links: &peer.Links{}, client: &http.Client{
		Timeout:   70 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
	}}
	ports := freePorts(t, 3*count)
	var seeds []string
	for n := range count {
		seeds = append(seeds, ports[3*n+2])
	}
	dir := t.TempDir()
	for n := range count {
		c.add(filepath.Join(dir, fmt.Sprintf("n%d", n+1)), ports[3*n:3*n+3], node.Found{BootstrapExpect: count, Join: seeds}, opts)
	}
	t.Cleanup(c.close)
	return c
}

// Start is New, and then starts all nodes and waits until they are ready and
// know a leader.
func Start(t testing.TB, count int, opts ...Option) *Cluster {
	t.Helper()
	c := New(t, count, opts...)
	for _, m := range c.Members {
		m.Start()
	}
	c.WaitReady()
	return c
}

// Grow prepares one more node that only joins, and does not start it.
func (c *Cluster) Grow(opts ...Option) *Member {
	c.t.Helper()
	return c.add(c.t.TempDir(), freePorts(c.t, 3), node.Found{Join: c.Members[0].cfg.Found.Join}, opts)
}

func (c *Cluster) add(dir string, ports []string, found node.Found, opts []Option) *Member {
	name := fmt.Sprintf("n%d", len(c.Members)+1)
	m := &Member{
		Name: name, c: c, log: &logBuffer{}, CheckFaults: &health.Faults{}, Faults: &cluster.Faults{Links: c.links},
		cfg: node.Config{
			DataDir: dir, Name: name, Version: "test", ClusterName: "clustertest",
			APIAddr: ports[0], PeerAddr: ports[1], GossipAddr: ports[2], Found: found, RaftProfile: "default",
		},
	}
	for _, o := range opts {
		o(&m.cfg)
	}
	c.Members = append(c.Members, m)
	return m
}

func (c *Cluster) close() {
	c.links.HealAll()
	for _, m := range c.Members {
		if m.Running() {
			m.cancel()
		}
	}
	for _, m := range c.Members {
		m.join()
		if c.t.Failed() {
			c.t.Logf("log of %s (%s):\n%s", m.Name, m.cfg.APIAddr, m.log.tail(80))
		}
	}
	c.client.CloseIdleConnections()
}

// Start starts the node, again if it has ended.
func (m *Member) Start() {
	m.c.t.Helper()
	level := slog.LevelDebug
	if _, measured := m.c.t.(*testing.B); measured {
		level = slog.LevelInfo // as in production: a line a request has its price
	}
	logger := slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: level}))
	deps := node.Deps{Logger: logger, Faults: m.Faults, CheckFaults: m.CheckFaults}
	if m.OnApplied != nil {
		deps.Listener = listener(m.OnApplied)
	}
	n, err := node.New(m.cfg, deps)
	if err != nil {
		m.c.t.Fatalf("%s does not start: %v", m.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	m.node, m.cancel, m.done = n, cancel, done
	go func() {
		defer close(done)
		m.err = n.Run(ctx)
	}()
}

type listener func(fsm.Changes)

func (l listener) Applied(c fsm.Changes) { l(c) }

// Running reports whether the node has been started and has not ended.
func (m *Member) Running() bool {
	if m.done == nil {
		return false
	}
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

// Stop asks the node to stop, as a signal would, and waits for it.
func (m *Member) Stop() error {
	m.c.t.Helper()
	m.cancel()
	return m.join()
}

// Kill ends the node as a crash would, with nothing said to anybody.
func (m *Member) Kill() {
	m.c.t.Helper()
	m.node.Kill()
	m.cancel()
	if err := m.join(); err != nil {
		m.c.t.Logf("%s was killed: %v", m.Name, err)
	}
}

// Ended waits until the node has ended by itself and returns its error.
func (m *Member) Ended() error { m.c.t.Helper(); return m.join() }

func (m *Member) join() error {
	if m.done == nil {
		return nil
	}
	select {
	case <-m.done:
		m.cancel()
		return m.err
	case <-time.After(Patience):
		m.c.t.Errorf("%s did not end in %s", m.Name, Patience)
		return errors.New("did not end")
	}
}

// Node is the running node.
func (m *Member) Node() *node.Node { return m.node }

// URL is the base of the node's HTTP API.
func (m *Member) URL() string { return "http://" + m.cfg.APIAddr }

// Dir is the node's data directory.
func (m *Member) Dir() string { return m.cfg.DataDir }

// Log is what the node has logged so far.
func (m *Member) Log() string { return m.log.String() }

// WaitReady waits until the running nodes are ready and know a leader.
func (c *Cluster) WaitReady() {
	c.t.Helper()
	for _, m := range c.Members {
		if m.Running() {
			m.WaitReady("?require=leader")
		}
	}
}

// WaitReady waits until the node answers 200 on /readyz with that query.
func (m *Member) WaitReady(query string) {
	m.c.t.Helper()
	m.c.Wait(m.Name+" to be ready", func() bool {
		if !m.Running() {
			m.c.t.Fatalf("%s has ended: %v", m.Name, m.err)
		}
		status, _, err := m.Do("GET", "/readyz"+query, "")
		return err == nil && status == http.StatusOK
	})
}

// Wait waits until cond holds.
func (c *Cluster) Wait(what string, cond func() bool) {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(Patience)
	for !cond() {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited %s for %s", Patience, what)
		}
		<-tick.C
	}
}

// Leader waits until the running nodes agree on a leader that runs, and returns it.
func (c *Cluster) Leader() *Member {
	c.t.Helper()
	var leader *Member
	c.Wait("a leader", func() bool {
		leader = nil
		for _, m := range c.Members {
			if m.Running() {
				if _, _, ok := m.node.Cluster().Session(); ok {
					leader = m
				}
			}
		}
		if leader == nil {
			return false
		}
		for _, m := range c.Members {
			if !m.Running() {
				continue
			}
			if id, _ := m.node.Cluster().Leader(); id != leader.node.ID() {
				return false
			}
		}
		return true
	})
	return leader
}

// Followers are the running members that are not m.
func (c *Cluster) Followers(m *Member) []*Member {
	var others []*Member
	for _, o := range c.Members {
		if o != m && o.Running() {
			others = append(others, o)
		}
	}
	return others
}

// Cut black-holes both directions between a and b, raft, calls and gossip.
func (c *Cluster) Cut(a, b *Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pair := range [][2]string{{a.cfg.PeerAddr, b.cfg.PeerAddr}, {a.cfg.GossipAddr, b.cfg.GossipAddr}} {
		c.links.Cut(pair[0], pair[1])
		c.links.Cut(pair[1], pair[0])
	}
}

// Isolate black-holes everything between m and the others.
func (c *Cluster) Isolate(m *Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links.Isolate(m.cfg.PeerAddr)
	c.links.Isolate(m.cfg.GossipAddr)
}

// Heal mends every link.
func (c *Cluster) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links.HealAll()
}

// Do sends one request to the node and returns status and body.
func (m *Member) Do(method, path, body string) (int, string, error) {
	resp, text, err := m.Request(method, path, body, nil)
	if err != nil {
		return 0, "", err
	}
	return resp.StatusCode, text, nil
}

// Request sends one request to the node and returns the answer and its body.
func (m *Member) Request(method, path, body string, header http.Header) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(m.c.t.Context(), method, m.URL()+path, strings.NewReader(body))
	if err != nil {
		return nil, "", fmt.Errorf("making a request: %w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := m.c.client.Do(req)
	if err != nil {
		return nil, "", fmt.Errorf("asking %s: %w", m.Name, err)
	}
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), errors.Join(err, resp.Body.Close())
}

// MustDo is Do that fails the test unless the status is one of those wanted. What is
// safe to repeat is repeated while the cluster has no leader, as a client would: on a
// busy machine one may stumble. A 200 then stands for a 201 whose answer was lost.
func (m *Member) MustDo(method, path, body string, want ...int) string {
	m.c.t.Helper()
	repeated := false
	for deadline := time.Now().Add(Patience); ; repeated = true {
		status, text, err := m.Do(method, path, body)
		if err != nil {
			m.c.t.Fatalf("%s %s on %s: %v", method, path, m.Name, err)
		}
		if slices.Contains(want, status) || repeated && status == http.StatusOK && slices.Contains(want, http.StatusCreated) {
			return text
		}
		passing := status == http.StatusServiceUnavailable && strings.Contains(text, `"no_leader"`) || status == http.StatusGatewayTimeout
		if !passing || method == http.MethodPost && path != "/v1/batch/register" || time.Now().After(deadline) {
			m.c.t.Fatalf("%s %s on %s: got %d %s, want %v", method, path, m.Name, status, text, want)
		}
		<-time.NewTimer(20 * time.Millisecond).C
	}
}

// MustDecode reads JSON text into v or fails the test.
func MustDecode(t testing.TB, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("decoding %s: %v", text, err)
	}
}

// CheckEqualStates waits until every running node has applied the same index and
// fails the test if their states differ.
func (c *Cluster) CheckEqualStates() {
	c.t.Helper()
	type state struct {
		hash  [32]byte
		index uint64
	}
	var states []state
	c.Wait("the nodes to have applied the same", func() bool {
		states = states[:0]
		for _, m := range c.Members {
			if m.Running() {
				h, i := m.node.State().Hash()
				states = append(states, state{h, i})
			}
		}
		for _, s := range states {
			if s.index != states[0].index {
				return false
			}
		}
		return true
	})
	for n, s := range states {
		if s != states[0] {
			c.t.Errorf("the states differ at index %d: node %d has %x, the first %x", s.index, n, s.hash, states[0].hash)
		}
	}
}

func freePorts(t testing.TB, n int) []string {
	t.Helper()
	ports, err := bench.FreePorts(n)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

// logBuffer keeps what a node logs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) tail(lines int) string {
	all := strings.Split(l.String(), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
