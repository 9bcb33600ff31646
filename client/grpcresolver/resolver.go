package grpcresolver

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	_ "google.golang.org/grpc/health" // client-side health checking, for who switches it on
	"google.golang.org/grpc/resolver"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/filter"
)

// Scheme is that of the targets.
const Scheme = "muster"

// RoundRobin is a service config for grpc.WithDefaultServiceConfig that takes turns
// over all instances, whatever the settings of the service.
const RoundRobin = `{"loadBalancingConfig":[{"round_robin":{}}]}`

// firstWait is how long a service that nothing is known of is waited for before that
// is told to the connection, whose calls fail then unless they wait for ready.
const firstWait = 5 * time.Second

// New makes the resolver of a client, for grpc.WithResolvers. It is not registered
// globally, so that several clients may be used in one process.
func New(c *client.Client) resolver.Builder { return &builder{c: c} }

// DialOptions resolves by c, picks by Policy, and makes spans of calls where the
// standard variables of OpenTelemetry ask for traces. An option that comes later, such
// as another grpc.WithDefaultServiceConfig, goes before these.
func DialOptions(c *client.Client) []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithResolvers(New(c)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"` + Policy + `":{}}]}`),
	}, traced()...)
}

// builder makes resolvers.
type builder struct {
	c *client.Client
}

// Scheme implements resolver.Builder.
func (b *builder) Scheme() string { return Scheme }

// Build implements resolver.Builder: it follows the service that a target names.
func (b *builder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	t, err := parse(&target.URL)
	if err != nil {
		return nil, err
	}
	narrow, err := new(filter.Cache).Compile(&t.query)
	if err != nil {
		return nil, err
	}
	// The interface gives no context: the resolver ends by Close.
	ctx, cancel := context.WithCancel(context.Background())
	var opts []client.Option
	if t.namespace != "" {
		opts = append(opts, client.In(t.namespace))
	}
	w, err := b.c.Watch(ctx, t.service, opts...)
	if err != nil {
		cancel()
		return nil, err
	}
	learnt, err := balancer.New(balancer.Config{})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("making a balancer: %w", err)
	}
	r := &following{cc: cc, watch: w, cancel: cancel, narrow: narrow, cell: &cell{balancer: learnt, zone: t.zone, port: t.port}}
	if r.cell.zone == "" {
		r.cell.zone = b.c.Zone()
	}
	r.running.Go(func() { r.run(ctx) })
	return r, nil
}

// wanted is what a target names.
type wanted struct {
	service, namespace, zone, port string
	query                          muster.Query
}

// parse reads a target.
func parse(u *url.URL) (wanted, error) {
	bad := func(format string, args ...any) (wanted, error) {
		return wanted{}, muster.Errorf(muster.CodeUnknownParameter, "target %s: %s", u, fmt.Sprintf(format, args...)).
			WithHint("write muster:///SERVICE?zone=ZONE; the registry's addresses are those of the client")
	}
	t := wanted{service: strings.TrimPrefix(u.Path, "/")}
	switch {
	case u.Host != "":
		return bad("it names a host, %q", u.Host)
	case t.service == "":
		return bad("it names no service")
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("its query cannot be read")
	}
	for name, v := range values {
		key, meta := strings.CutPrefix(name, "meta.")
		if len(v) > 1 && name != "tag" {
			return bad("%s is given twice", name)
		}
		switch {
		case meta && key != "":
			if t.query.Meta == nil {
				t.query.Meta = map[string]string{}
			}
			t.query.Meta[key] = v[0]
		case name == "zone":
			t.zone = v[0]
		case name == "namespace":
			t.namespace = v[0]
		case name == "port":
			t.port = v[0]
		case name == "filter":
			t.query.Filter = v[0]
		case name == "version":
			t.query.Version = v[0]
		case name == "tag":
			t.query.Tags = v
		default:
			return bad("%q is none of zone, namespace, port, version, tag, meta.KEY, filter", name)
		}
	}
	return t, nil
}

// following is the resolver of one connection.
type following struct {
	cc      resolver.ClientConn
	watch   *client.Watch
	cancel  context.CancelFunc
	running sync.WaitGroup
	narrow  *filter.Filter
	cell    *cell
	told    bool // of somebody to connect to; the goroutine's
}

// cell is what a resolver and the pickers of its connection share.
type cell struct {
	balancer *balancer.Balancer
	zone     string
	port     string // name; "" is the instance's port
	view     atomic.Pointer[muster.View]
}

// ResolveNow implements resolver.Resolver. What is known is as new as it gets.
func (r *following) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (r *following) Close() {
	r.cancel()
	r.running.Wait()
}

// run tells the connection of every view until ctx ends.
func (r *following) run(ctx context.Context) {
	if err := r.await(ctx); err != nil && ctx.Err() == nil {
		r.cc.ReportError(err)
	}
	for v := range r.watch.Views(ctx) {
		r.tell(v)
	}
	if ctx.Err() == nil {
		r.cc.ReportError(muster.Errorf(muster.CodeShuttingDown, "the client is closed"))
	}
}

func (r *following) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	_, err := r.watch.Await(ctx)
	return err
}

// tell gives the connection the instances of a view.
func (r *following) tell(v *muster.View) {
	part, err := r.narrow.Apply(v)
	if err != nil { // an expression that these instances cannot be asked
		r.cc.ReportError(err)
		return
	}
	if v = part; r.cell.port != "" {
		v = v.Filtered(func(i *muster.Instance) bool { _, ok := i.HostPort(r.cell.port); return ok })
	}
	r.cell.view.Store(v)
	state := resolver.State{}
	seen := map[string]bool{}
	for _, i := range candidates(v) {
		addr := r.cell.address(i)
		if seen[addr] {
			continue
		}
		seen[addr] = true
		a := resolver.Address{Addr: addr, Attributes: attributes.New(cellKey{}, r.cell)}
		state.Addresses = append(state.Addresses, a)
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{
			Addresses: []resolver.Address{a}, Attributes: attributes.New(instanceKey{}, &found{i}),
		})
	}
	if r.told = r.told || len(state.Endpoints) > 0; r.told {
		// Its error says that the policy has no use for an empty list. Another state
		// follows when there is one, not the same once more.
		_ = r.cc.UpdateState(state)
	}
	if len(state.Endpoints) == 0 {
		r.cc.ReportError(nobody(v))
	}
}

// candidates are the instances to connect to.
func candidates(v *muster.View) []*muster.Instance {
	var well, alive []*muster.Instance
	for _, i := range v.Instances {
		switch {
		case i.Weight <= 0:
		case i.Routable:
			well = append(well, i)
		case i.Status == muster.StatusUp, i.Status == muster.StatusDown && i.StatusCause == muster.CauseCheckFailed:
			alive = append(alive, i)
		}
	}
	if len(well) == 0 {
		return alive
	}
	return well
}

// nobody is why there is nobody to connect to.
func nobody(v *muster.View) error {
	switch {
	case len(v.Instances) > 0:
		return muster.Errorf(muster.CodeNoInstance, "none of the %d instances of service %s is routable", len(v.Instances), v.Service)
	case v.EmptyReason == "":
		return muster.Errorf(muster.CodeUnknownService, "no service is registered as %s in namespace %s", v.Service, v.Namespace)
	}
	return muster.Errorf(muster.CodeNoInstance, "service %s has no instance (%s)", v.Service, v.EmptyReason)
}

// address is where calls go at an instance.
func (c *cell) address(i *muster.Instance) string {
	addr, _ := i.HostPort(c.port)
	return addr
}

type (
	cellKey     struct{}
	instanceKey struct{}
)

// found is an instance as an attribute of its endpoint.
type found struct{ instance *muster.Instance }

// Equal tells gRPC whether two attributes are the same.
func (f *found) Equal(o any) bool {
	other, ok := o.(*found)
	return ok && (f.instance == other.instance || f.instance.ID == other.instance.ID && f.instance.ModifyIndex == other.instance.ModifyIndex)
}

// InstanceOf returns the instance behind an endpoint that this package resolved,
// with its weight, zone and metadata; nil for any other. It must not be changed.
func InstanceOf(e resolver.Endpoint) *muster.Instance {
	if f, ok := e.Attributes.Value(instanceKey{}).(*found); ok {
		return f.instance
	}
	return nil
}
