package registry

import (
	"context"
	"errors"
	"time"

	"github.com/muster-registry/muster"
)

// current makes sure that this node may answer a read that wants o, and says how
// old the answer may be. A read is never refused because there is no leader,
// unless it asked for more than the node alone can give.
func (r *Registry) current(ctx context.Context, o muster.ReadOptions) (time.Duration, error) {
	if o.Linearizable {
		if err := r.consensus.ReadIndex(ctx); err != nil {
			return 0, err
		}
	}
	stale, ready := r.consensus.Freshness()
	if !ready && !o.Linearizable {
		return 0, muster.Errorf(muster.CodeCatchingUp, "this node has started and has not yet caught up with a leader").
			WithHint("ask another node, or try again shortly").WithRetryAfter(time.Second)
	}
	if o.MinIndex > r.state.Index() {
		if err := r.awaitMinIndex(ctx, o); err != nil {
			return 0, err
		}
		stale, _ = r.consensus.Freshness()
	}
	if o.Cursor > r.state.Index() {
		if err := r.awaitCursor(ctx, o.Cursor); err != nil {
			return 0, err
		}
		stale, _ = r.consensus.Freshness()
	}
	if o.MaxStale > 0 && stale > o.MaxStale && !o.Linearizable {
		if err := r.consensus.Refresh(ctx, o.MaxStale); err != nil {
			return 0, err
		}
		stale, _ = r.consensus.Freshness()
	}
	if o.Linearizable {
		stale = 0
	}
	return stale, nil
}

func (r *Registry) awaitMinIndex(ctx context.Context, o muster.ReadOptions) error {
	wait := o.Wait
	if wait <= 0 {
		wait = muster.MaxMinIndexWait
	}
	wctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := r.state.WaitIndex(wctx, o.MinIndex)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	return muster.Errorf(muster.CodeBehind, "this node has applied index %d and did not reach %d in %s", r.state.Index(), o.MinIndex, wait).
		WithHint("ask another node, or try again").WithRetryAfter(time.Second).WithCause(err)
}

// awaitCursor waits until this node has applied what a caller saw elsewhere, so
// that he is never answered something older. A cursor that not even the leader's
// confirmed commit index reaches is none of this cluster's.
func (r *Registry) awaitCursor(ctx context.Context, cursor uint64) error {
	if committed, err := r.consensus.Confirmed(ctx); err == nil {
		// The epoch is part of the state: it is known once the state is there.
		if err := r.state.WaitApplied(ctx, committed); err != nil {
			return behindCursor(cursor, err)
		}
		if cursor > r.state.Index() {
			return muster.Errorf(muster.CodeCursorGone, "the index %d is ahead of all that this cluster has committed", cursor).
				WithHint("start again from index 0")
		}
		return nil
	}
	// Without a leader nobody can say; the node may still get there.
	if err := r.state.WaitIndex(ctx, cursor); err != nil {
		return behindCursor(cursor, err)
	}
	return nil
}

func behindCursor(cursor uint64, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return muster.Errorf(muster.CodeBehind, "this node did not reach index %d within the wait", cursor).
		WithHint("ask another node, or try again").WithRetryAfter(time.Second).WithCause(err)
}

// Service answers the view of a service, narrowed by q. All who ask for the same
// filter share one view. Where nothing was ever known of the service the error is
// CodeUnknownService, and the ReadInfo still holds an index to wait from.
func (r *Registry) Service(ctx context.Context, k muster.ServiceKey, q *muster.Query, o muster.ReadOptions) (*muster.View, muster.ReadInfo, error) {
	k, err := cleanService(k)
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	f, err := r.filters.Compile(q)
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	stale, err := r.current(ctx, o)
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	v, info := r.look(k, stale)
	if v == nil {
		return nil, info, unknownService(k)
	}
	v, err = f.Apply(v)
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	return v, info, nil
}

// Instance answers one instance; the ReadInfo holds the index of its service.
func (r *Registry) Instance(ctx context.Context, k muster.InstanceKey, o muster.ReadOptions) (*muster.Instance, muster.ReadInfo, error) {
	if err := k.Clean(); err != nil {
		return nil, muster.ReadInfo{}, err
	}
	stale, err := r.current(ctx, o)
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	sk := muster.ServiceKey{Namespace: k.Namespace, Service: k.Service}
	v, info := r.look(sk, stale)
	if v == nil {
		return nil, info, unknownService(sk)
	}
	if i := v.Find(k.ID); i != nil {
		return i, info, nil
	}
	return nil, info, muster.Errorf(muster.CodeUnknownInstance, "service %s has no instance %q", sk, k.ID).
		WithHint("GET /v1/events?service=%s&instance=%s&namespace=%s says what became of it", k.Service, k.ID, k.Namespace)
}

// Services lists the services of a namespace whose name starts with prefix.
func (r *Registry) Services(ctx context.Context, namespace, prefix string, o muster.ReadOptions) (*muster.Services, muster.ReadInfo, error) {
	namespace, err := muster.CleanNamespace(namespace)
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	stale, err := r.current(ctx, o)
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	list, index, changed := r.state.Services(namespace, prefix)
	if list == nil {
		list = []muster.ServiceSummary{}
	}
	return &muster.Services{Services: list}, muster.ReadInfo{Index: index, Stale: stale, Changed: changed}, nil
}

// look returns the view of a service and how current it is. Where nothing is
// known of the service the view is nil, and the index is the one since which
// nothing is known of it: a poll from there waits until the service appears.
func (r *Registry) look(k muster.ServiceKey, stale time.Duration) (*muster.View, muster.ReadInfo) {
	v, changed := r.state.Watch(k)
	info := muster.ReadInfo{Stale: stale, Changed: changed}
	if v == nil {
		info.Index = max(1, r.state.Floor())
		return nil, info
	}
	info.Index = v.Index
	return v, info
}

// Events answers the journal of transitions.
func (r *Registry) Events(ctx context.Context, q muster.EventQuery, o muster.ReadOptions) (*muster.Events, muster.ReadInfo, error) {
	var err error
	if q.Namespace != "" || q.Service != "" {
		if q.Namespace, err = muster.CleanNamespace(q.Namespace); err != nil {
			return nil, muster.ReadInfo{}, err
		}
	}
	if q.Service != "" {
		if q.Service, err = muster.CleanService(q.Service); err != nil {
			return nil, muster.ReadInfo{}, err
		}
	}
	if q.Limit <= 0 {
		q.Limit = muster.DefaultEventsLimit
	}
	q.Limit = min(q.Limit, muster.MaxEvents)
	stale, err := r.current(ctx, o)
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	events := r.state.Events(q)
	return &events, muster.ReadInfo{Index: events.Index, Stale: stale}, nil
}

func cleanService(k muster.ServiceKey) (muster.ServiceKey, error) {
	var err error
	if k.Namespace, err = muster.CleanNamespace(k.Namespace); err != nil {
		return k, err
	}
	k.Service, err = muster.CleanService(k.Service)
	return k, err
}

func unknownService(k muster.ServiceKey) error {
	return muster.Errorf(muster.CodeUnknownService, "no service %s was ever registered", k).
		WithHint("check the name and ?namespace=; ?index=N&wait=30s with this answer's Muster-Index waits until it appears")
}
