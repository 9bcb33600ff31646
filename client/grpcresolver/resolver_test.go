package grpcresolver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
	"google.golang.org/grpc/status"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/client/grpcresolver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node streams one view after the other of service users, as a registry would.
type node struct {
	*httptest.Server
	mu      sync.Mutex
	view    *muster.View
	changed chan struct{}
}

func newNode(t *testing.T) *node {
	n := &node{changed: make(chan struct{}), view: &muster.View{Namespace: "default", Service: "users", Index: 1}}
	n.Server = httptest.NewServer(n)
	t.Cleanup(func() { n.CloseClientConnections(); n.Close() })
	return n
}

// show changes what the node tells.
func (n *node) show(reason muster.EmptyReason, s *muster.Settings, instances ...*muster.Instance) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, i := range instances {
		i.ModifyIndex = n.view.Index + 1
	}
	n.view = &muster.View{Namespace: "default", Service: "users", Index: n.view.Index + 1, Instances: instances, EmptyReason: reason, Settings: s}
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Muster-Cluster", "c-1")
	for {
		n.mu.Lock()
		b, err := json.Marshal(n.view)
		index, changed := n.view.Index, n.changed
		n.mu.Unlock()
		if err != nil {
			panic(err)
		}
		_, _ = fmt.Fprintf(w, `{"type":"resync","data":%s}`+"\n"+`{"type":"synced","id":%d,"data":{"index":%d}}`+"\n", b, index, index)
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func newClient(t *testing.T, n *node) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Addrs: []string{n.URL}, Zone: "near"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// conn is a resolver.ClientConn that keeps what it is told.
type conn struct {
	states chan resolver.State
	errs   chan error
}

func (c *conn) UpdateState(s resolver.State) error                   { c.states <- s; return nil }
func (c *conn) ReportError(err error)                                { c.errs <- err }
func (c *conn) NewAddress([]resolver.Address)                        {}
func (c *conn) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }

func target(t *testing.T, s string) resolver.Target {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return resolver.Target{URL: *u}
}

func up(id string, port int) *muster.Instance {
	return &muster.Instance{Namespace: "default", Service: "users", ID: id, Address: "127.0.0.1", Port: port, Weight: 100, Status: muster.StatusUp, Routable: true}
}

// TestResolve tells of the routable instances of a filter, with what is known of
// them, and keeps the last ones while the registry is away.
func TestResolve(t *testing.T) {
	n := newNode(t)
	a, b, c, d := up("a", 1), up("b", 2), up("c", 3), up("d", 4)
	a.Zone, a.Weight, a.Tags = "near", 7, []string{"x"}
	b.Tags, c.Tags = []string{"x"}, []string{"x"}
	b.Routable, b.Status = false, muster.StatusMaintenance
	c.Weight = 0
	n.show("", nil, a, b, c, d)
	cl := newClient(t, n)
	cc := &conn{states: make(chan resolver.State, 10), errs: make(chan error, 10)}
	r, err := grpcresolver.New(cl).Build(target(t, "muster:///users?tag=x"), cc, resolver.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := <-cc.states
	if len(s.Endpoints) != 1 || len(s.Addresses) != 1 || s.Addresses[0].Addr != "127.0.0.1:1" {
		t.Fatalf("resolved %+v", s)
	}
	if i := grpcresolver.InstanceOf(s.Endpoints[0]); i == nil || i.ID != "a" || i.Zone != "near" || i.Weight != 7 {
		t.Errorf("the endpoint is of %+v", i)
	}
	if i := grpcresolver.InstanceOf(resolver.Endpoint{}); i != nil {
		t.Errorf("another endpoint is of %+v", i)
	}
	// With none routable, whoever may be alive.
	a.Routable, a.Status, a.StatusCause = false, muster.StatusDown, muster.CauseCheckFailed
	n.show("", nil, a, b)
	if s = <-cc.states; len(s.Endpoints) != 1 || s.Addresses[0].Addr != "127.0.0.1:1" {
		t.Errorf("with none routable: %+v", s)
	}
	// An emptiness without a reason changes nothing; a deregistration does.
	n.show("", nil)
	n.show("", nil, up("e", 5))
	n.show(muster.EmptyDeregistered, nil)
	var got []string
	for len(got) == 0 || got[len(got)-1] != "" {
		s := <-cc.states
		var addrs []string
		for _, a := range s.Addresses {
			addrs = append(addrs, a.Addr)
		}
		got = append(got, strings.Join(addrs, " "))
	}
	// e carries no tag: with it, the list of this target is empty.
	if len(got) > 2 {
		t.Errorf("resolved %q", got)
	}
}

// TestPortAndFilter: a named port instead of the port, and instances that an
// expression fits, which is read again from every view.
func TestPortAndFilter(t *testing.T) {
	n := newNode(t)
	a, b, c := up("a", 1), up("b", 2), up("c", 3)
	a.Ports, b.Ports = map[string]int{"grpc": 11}, map[string]int{"grpc": 12}
	a.Version, b.Version, c.Version = "2", "2", "2"
	n.show("", nil, a, b, c)
	cc := &conn{states: make(chan resolver.State, 10), errs: make(chan error, 10)}
	r, err := grpcresolver.New(newClient(t, n)).Build(target(t, "muster:///users?port=grpc&filter="+url.QueryEscape(`id != "a" and version == "2"`)), cc, resolver.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if s := <-cc.states; len(s.Addresses) != 1 || s.Addresses[0].Addr != "127.0.0.1:12" {
		t.Errorf("resolved %+v", s.Addresses)
	}
	newer := *b
	newer.Version = "3"
	n.show("", nil, a, &newer, c)
	if s := <-cc.states; len(s.Addresses) != 0 {
		t.Errorf("resolved %+v", s.Addresses)
	}
	if err := <-cc.errs; err == nil {
		t.Error("nobody fits, and nobody was told")
	}
}

func TestTargets(t *testing.T) {
	n := newNode(t)
	cl := newClient(t, n)
	for _, bad := range []string{"muster://host/users", "muster:///", "muster:///users?zon=a", "muster:///users?zone=a&zone=b", "muster:///-", "muster:///users?namespace=-", "muster:///users?meta.=x", "muster:///a/b", "muster:///users?filter=prt+==+1", "muster:///users?%zz"} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := grpcresolver.New(cl).Build(resolver.Target{URL: *u}, &conn{}, resolver.BuildOptions{}); err == nil {
			r.Close()
			t.Errorf("%s was taken", bad)
		}
	}
}

// server is a gRPC server that knows its own name.
type server struct {
	grpc_health_v1.UnimplementedHealthServer
	name string
	mu   sync.Mutex
	err  error // guarded by mu
}

func (s *server) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &grpc_health_v1.HealthCheckResponse{}, s.err
}

// serve starts a server that says its name in a header.
func serve(t *testing.T, name string) (*server, *muster.Instance) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{name: name}
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if err := grpc.SetHeader(ctx, metadata.MD{"name": {name}}); err != nil {
			return nil, err
		}
		return h(ctx, req)
	}))
	grpc_health_v1.RegisterHealthServer(g, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l) // ends with Stop
	}()
	t.Cleanup(func() { g.Stop(); <-done })
	return s, up(name, l.Addr().(*net.TCPAddr).Port)
}

// ask makes a call and returns the name of who answered.
func ask(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	var header metadata.MD
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header), grpc.WaitForReady(true))
	if len(header["name"]) > 0 {
		return header["name"][0], err
	}
	return "", err
}

func dial(t *testing.T, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestPolicy picks by weight, zone, key and by what became of calls.
func TestPolicy(t *testing.T) {
	n := newNode(t)
	cl := newClient(t, n)
	var servers []*server
	var instances []*muster.Instance
	for k := range 4 {
		s, i := serve(t, "s-"+strconv.Itoa(k))
		servers, instances = append(servers, s), append(instances, i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn := dial(t, "muster:///users", grpcresolver.DialOptions(cl)...)
	n.show("", nil, instances...)
	// spread makes calls until done says that what came of a hundred is right.
	spread := func(what string, ctx context.Context, right func(map[string]int) bool) {
		t.Helper()
		for {
			count := map[string]int{}
			for range 100 {
				name, err := ask(ctx, conn)
				if err != nil && status.Code(err) != codes.Unavailable {
					t.Fatalf("%s: %v", what, err)
				}
				count[name]++
			}
			if right(count) {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: a hundred calls went to %v", what, count)
			}
		}
	}
	spread("all of them", ctx, func(m map[string]int) bool { return m["s-0"] == 25 && len(m) == 4 })

	weighted := muster.DefaultSettings()
	weighted.Strategy = muster.StrategyWeightedRoundRobin
	heavy := *instances[1]
	heavy.Weight = 300
	n.show("", &weighted, instances[0], &heavy)
	spread("by weight", ctx, func(m map[string]int) bool { return m["s-0"] == 25 && m["s-1"] == 75 })

	near := *instances[2]
	near.Zone = "near"
	n.show("", nil, instances[0], &near)
	spread("the client's zone", ctx, func(m map[string]int) bool { return m["s-2"] == 100 })

	hash := muster.DefaultSettings()
	hash.Strategy = muster.StrategyConsistentHash
	n.show("", &hash, instances...)
	spread("by the method", ctx, func(m map[string]int) bool { return len(m) == 1 })
	homes := map[string]bool{}
	for k := range 20 {
		spread("by key", grpcresolver.WithKey(ctx, strconv.Itoa(k)), func(m map[string]int) bool {
			for name := range m {
				homes[name] = true
			}
			return len(m) == 1
		})
	}
	if len(homes) < 3 {
		t.Errorf("20 keys went to %v", homes)
	}

	servers[3].mu.Lock()
	servers[3].err = status.Error(codes.Unavailable, "sick")
	servers[3].mu.Unlock()
	n.show("", nil, instances...)
	spread("without the one that fails", ctx, func(m map[string]int) bool { return m["s-3"] <= 3 && m["s-0"] >= 25 })
}

// TestNobodyToPick: calls fail at once and say why, or wait if they are to.
func TestNobodyToPick(t *testing.T) {
	n := newNode(t)
	cl := newClient(t, n)
	_, i := serve(t, "a")
	sick := *i
	sick.Routable, sick.Status, sick.StatusCause = false, muster.StatusDown, muster.CauseCheckFailed
	n.show("", nil, &sick)
	conn := dial(t, "muster:///users", grpcresolver.DialOptions(cl)...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no instance of service users can be picked") {
		t.Errorf("got %v", err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := ask(ctx, conn)
		waits <- err
	}()
	n.show("", nil, i)
	if err := <-waits; err != nil {
		t.Errorf("a call that waits: %v", err)
	}
}

// TestRoundRobin is one of gRPC's own policies, and an unknown service an error that
// says so.
func TestRoundRobin(t *testing.T) {
	n := newNode(t)
	cl := newClient(t, n)
	_, a := serve(t, "a")
	_, b := serve(t, "b")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn := dial(t, "muster:///users", grpc.WithResolvers(grpcresolver.New(cl)), grpc.WithDefaultServiceConfig(grpcresolver.RoundRobin))
	ours := dial(t, "muster:///users", grpcresolver.DialOptions(cl)...)
	_, err := grpc_health_v1.NewHealthClient(ours).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no service is registered as users") {
		t.Errorf("of an unknown service: %v", err)
	}
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("of an unknown service: %v", err)
	}
	n.show("", nil, a, b)
	count := map[string]int{}
	for len(count) < 2 && ctx.Err() == nil {
		name, err := ask(ctx, conn)
		if err != nil {
			t.Fatal(err)
		}
		count[name]++
	}
	n.CloseClientConnections()
	n.Close() // the registry is gone; the list is not
	for range 20 {
		if _, err := ask(ctx, conn); err != nil {
			t.Fatal(err)
		}
	}
	if s := conn.GetState(); s != connectivity.Ready {
		t.Errorf("the connection is %s", s)
	}
}
