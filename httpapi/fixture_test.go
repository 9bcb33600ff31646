package httpapi_test

import (
	"bufio"
	"cmp"
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
	"github.com/muster-registry/muster/httpapi"
)

// members is a cluster of three in memory.
type members struct {
	mu     sync.Mutex
	leader string
	ready  bool
	ids    []string
	behind error // what Overloaded answers
}

func newMembers() *members {
	return &members{leader: "node-1", ready: true, ids: []string{"node-1", "node-2", "node-3"}}
}

func (m *members) ID() string        { return "node-1" }
func (m *members) ClusterID() string { return "cluster-1" }

func (m *members) Leader() (string, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader, "127.0.0.1:7400"
}

func (m *members) Freshness() (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return 42 * time.Millisecond, m.ready
}

func (m *members) Overloaded() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.behind
}

func (m *members) setBehind(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.behind = err
}

func (m *members) Startup() muster.Startup {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready {
		return muster.Startup{}
	}
	return muster.Startup{Stage: "applying the log", Done: 12, Total: 57, Unit: "entries"}
}

func (m *members) set(leader string, ready bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leader, m.ready = leader, ready
}

func (m *members) Status() muster.Cluster {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := muster.Cluster{ClusterID: "cluster-1", Leader: m.leader, Term: 3, CommitIndex: 57}
	for _, id := range m.ids {
		state := muster.MemberFollower
		if id == m.leader {
			state = muster.MemberLeader
		}
		c.Members = append(c.Members, muster.Member{
			ID: id, Name: id, State: state, Alive: true, APIAddr: "127.0.0.1:7400", PeerAddr: "127.0.0.1:7401", AppliedIndex: 57,
		})
	}
	return c
}

func (m *members) TransferLeadership(_ context.Context, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if to == "" {
		to = "node-2"
	}
	if !slices.Contains(m.ids, to) {
		return muster.Errorf(muster.CodeUnknownMember, "no member has the id %q", to)
	}
	m.leader = to
	return nil
}

func (m *members) RemoveMember(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.ids, id) {
		return muster.Errorf(muster.CodeUnknownMember, "no member has the id %q", id)
	}
	if len(m.ids) == 2 {
		return muster.Errorf(muster.CodeConflict, "without %s there is no quorum", id)
	}
	m.ids = slices.DeleteFunc(m.ids, func(s string) bool { return s == id })
	return nil
}

// ownTickets takes reports on the tickets of its own balancer alone.
type ownTickets struct{ *balancer.Balancer }

func (o ownTickets) Redeem(_ context.Context, ticket string, what balancer.Outcome) error {
	return o.Balancer.Redeem(time.Now(), ticket, what)
}

// level is the level of a log in memory.
type level struct {
	mu   sync.Mutex
	name string
	hold time.Duration
}

func (l *level) LogLevel() muster.LogLevel {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := muster.LogLevel{Level: cmp.Or(l.name, "info"), Configured: "info"}
	if l.hold > 0 {
		now.Until = epoch.Add(l.hold)
	}
	return now
}

func (l *level) SetLogLevel(name string, hold time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.name, l.hold = name, hold
}

// fixture is a server over a registry in memory.
type fixture struct {
	registry *memory
	cluster  *members
	balancer *balancer.Balancer
	server   *httpapi.Server
	metrics  *prometheus.Registry
	addr     string
}

// depsOf are the parts of a server over m, with a cluster and a balancer of their
// own. The balancer leaves nothing to chance, so that transcripts stay the same.
func depsOf(l net.Listener, m *memory) httpapi.Deps {
	b, err := balancer.New(balancer.Config{Node: newMembers().ID(), Random: func() uint64 { return 1 }})
	if err != nil {
		panic(err)
	}
	return httpapi.Deps{
		Listener: l, Registry: m, Leases: m, Watches: m, Settings: m, Backups: m, Cluster: newMembers(), Balancer: b, Tickets: ownTickets{b},
		LogLevels: new(level),
	}
}

// newFixture makes a server that does not run; edit may change what it is made of.
func newFixture(t testing.TB, edit func(*httpapi.Config, *httpapi.Deps)) *fixture {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f := &fixture{registry: newMemory(), cluster: newMembers(), metrics: prometheus.NewRegistry(), addr: l.Addr().String()}
	cfg := httpapi.Config{Version: "v0.1.0"}
	deps := depsOf(l, f.registry)
	deps.Cluster, deps.Registerer, deps.Gatherer = f.cluster, f.metrics, f.metrics
	f.balancer = deps.Balancer
	if edit != nil {
		edit(&cfg, &deps)
	}
	if f.server, err = httpapi.New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	return f
}

// run serves until the test ends, or until stop is called, which answers Run's
// error.
func (f *fixture) run(t testing.TB) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.server.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return stop
}

// gauge reads one of the room's gauges.
func (f *fixture) gauge(t testing.TB, name string) float64 {
	t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families {
		if m.GetName() == name {
			return m.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no gauge %s", name)
	return 0
}

// await returns once a gauge has the value that ok wants.
func (f *fixture) await(t testing.TB, name string, ok func(float64) bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); !ok(f.gauge(t, name)); <-tick.C {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("%s is still %v", name, f.gauge(t, name))
		}
	}
}

func reader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }
