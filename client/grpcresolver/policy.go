package grpcresolver

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// Policy is the name of the policy in a service config.
const Policy = "muster"

// gRPC keeps its policies in a global table that may only be written while the
// program is initialized, so that this cannot wait for New.
var _ = register()

func register() bool {
	grpcbalancer.Register(base.NewBalancerBuilder(Policy, pickerBuilder{}, base.Config{HealthCheck: true}))
	return true
}

type keyKey struct{}

// WithKey has the calls that carry the context go by a key where the strategy of the
// service is a hash.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyKey{}, key)
}

// pickerBuilder makes a picker whenever a connection comes or goes.
type pickerBuilder struct{}

// Build implements base.PickerBuilder.
func (pickerBuilder) Build(info base.PickerBuildInfo) grpcbalancer.Picker {
	if len(info.ReadySCs) == 0 {
		return base.NewErrPicker(grpcbalancer.ErrNoSubConnAvailable)
	}
	p := &picker{ready: make(map[string]grpcbalancer.SubConn, len(info.ReadySCs))}
	for sc, i := range info.ReadySCs {
		p.ready[i.Address.Addr] = sc
		if c, ok := i.Address.Attributes.Value(cellKey{}).(*cell); ok {
			p.cell = c
		}
	}
	if p.cell == nil {
		return base.NewErrPicker(status.Error(codes.FailedPrecondition, "policy "+Policy+" goes with targets of scheme "+Scheme+" only"))
	}
	return p
}

// picker picks among the instances there is a connection to.
type picker struct {
	cell  *cell
	ready map[string]grpcbalancer.SubConn // by address
	last  atomic.Pointer[part]
}

// part is the instances of a view there is a connection to.
type part struct {
	of, view *muster.View
}

// view is the part of the latest view that can be picked, made once for each.
func (p *picker) view() *muster.View {
	v := p.cell.view.Load()
	if got := p.last.Load(); got != nil && got.of == v {
		return got.view
	}
	made := &part{v, v.Filtered(func(i *muster.Instance) bool { return p.ready[p.cell.address(i)] != nil })}
	p.last.Store(made)
	return made.view
}

// Pick implements balancer.Picker of gRPC.
func (p *picker) Pick(info grpcbalancer.PickInfo) (grpcbalancer.PickResult, error) {
	r := balancer.Request{View: p.view(), Zone: p.cell.zone, Key: info.FullMethodName}
	if key, ok := info.Ctx.Value(keyKey{}).(string); ok && key != "" {
		r.Key = key
	}
	choice, err := p.cell.balancer.Start(time.Now(), &r)
	switch {
	case err == nil:
	case len(r.View.Instances) == 0:
		// What there is a connection to left the service: another picker comes soon.
		return grpcbalancer.PickResult{}, grpcbalancer.ErrNoSubConnAvailable
	case errors.Is(err, muster.CodeNoInstance):
		return grpcbalancer.PickResult{}, err // calls that wait for ready go on waiting
	default:
		return grpcbalancer.PickResult{}, status.Error(codes.FailedPrecondition, err.Error())
	}
	began := time.Now()
	return grpcbalancer.PickResult{
		SubConn: p.ready[p.cell.address(choice.Instance)],
		Done:    func(done grpcbalancer.DoneInfo) { p.done(choice, time.Since(began), done.Err) },
	}, nil
}

// done tells what became of a call.
func (p *picker) done(choice balancer.Choice, took time.Duration, err error) {
	switch status.Code(err) {
	case codes.Canceled:
		p.cell.balancer.Drop(choice)
	case codes.Unavailable, codes.Internal, codes.DataLoss, codes.DeadlineExceeded, codes.ResourceExhausted:
		p.cell.balancer.Done(time.Now(), choice, balancer.Outcome{Failed: true, Latency: took})
	default:
		p.cell.balancer.Done(time.Now(), choice, balancer.Outcome{Latency: took})
	}
}
