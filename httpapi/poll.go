package httpapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/muster-registry/muster"
)

// poll is a long poll: a read that is held back until it has something to tell to
// a caller who knows all up to an index.
type poll struct {
	c     *call
	index uint64
	wait  time.Duration
	o     muster.ReadOptions
	// timeout bounds a reading that has to ask other nodes, which bounded says.
	timeout time.Duration
	bounded bool
}

// newPoll reads the parameters of a read that can be waited on.
func (c *call) newPoll() (p poll, err error) {
	p.c = c
	if p.o, p.timeout, p.bounded, err = c.values.readOptions(); err != nil {
		return p, err
	}
	if p.index, err = c.values.index(paramIndex); err != nil {
		return p, err
	}
	if p.wait, err = c.values.duration(paramWait, muster.DefaultWait, 0, muster.MaxWait); err != nil {
		return p, err
	}
	if !c.values.has(paramCluster) {
		return p, nil
	}
	if now := c.s.cluster.ClusterID(); now != "" && now != c.values.text[paramCluster] {
		return p, muster.Errorf(muster.CodeCursorGone, "the index belongs to another cluster than %s", now).WithHint("start again from index 0")
	}
	return p, nil
}

// reading is one answer to a read: a value or an error, and how current it is.
type reading[T any] struct {
	value T
	info  muster.ReadInfo
	err   error
}

// unknown reports whether there is no such thing (yet): that can be waited on.
func (r reading[T]) unknown() bool {
	return errors.Is(r.err, muster.CodeUnknownService) || errors.Is(r.err, muster.CodeUnknownInstance)
}

// source is a read that can be repeated.
type source[T any] struct {
	read func(context.Context, muster.ReadOptions) (T, muster.ReadInfo, error)
	// index is the index of the last change to what was answered, as far as it is
	// known; nil: that of the view.
	index func(T) uint64
	// same tells whether two answers tell the same.
	same func(a, b T) bool
	// pace is what its polls are paced by.
	pace paceKey
}

func (s source[T]) once(ctx context.Context, o muster.ReadOptions) (r reading[T]) {
	r.value, r.info, r.err = s.read(ctx, o)
	return r
}

// newer reports whether r tells something to who knows all up to index. That a
// service is unknown is no news: the index that comes with it is not one of a
// view.
func (s source[T]) newer(r reading[T], index uint64) bool {
	if r.err == nil && s.index != nil {
		return s.index(r.value) > index
	}
	return r.info.Index > index && !errors.Is(r.err, muster.CodeUnknownService)
}

// answer reads at once, or holds back until there is news, the wait is over or
// the server stops.
func answer[T any](p poll, s source[T]) (T, muster.ReadInfo, error) {
	var r reading[T]
	if p.index == 0 {
		r = bounded(p, p.c.r.Context(), s)
	} else {
		r = held(p, s)
	}
	return r.value, r.info, r.err
}

// stoppingKey finds, in the context of a request, the context that ends when the
// server begins to stop. The request's own goes on then, so that what is in flight
// can end well.
type stoppingKey struct{}

// When the server stops, polls end within goodbyeSpread, each by chance, so that
// their callers do not all come to the next node at once; where there are few, it
// need not take as long.
const (
	goodbyeSpread = time.Second
	goodbyeApart  = 5 * time.Millisecond
)

// later calls end within the time in which the polls are to end.
func (s *Server) later(end func()) {
	spread := min(goodbyeSpread, time.Duration(s.waiting.Load())*goodbyeApart)
	time.AfterFunc(rand.N(spread+1), end)
}

// bounded reads once, with the limit that the caller's options ask for.
func bounded[T any](p poll, ctx context.Context, s source[T]) reading[T] {
	if p.bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.timeout)
		defer cancel()
	}
	return s.once(ctx, p.o)
}

func held[T any](p poll, s source[T]) reading[T] {
	p.c.waited = true
	p.c.s.metrics.polls.Inc()
	p.c.s.waiting.Add(1)
	defer func() {
		p.c.s.waiting.Add(-1)
		p.c.s.metrics.polls.Dec()
	}()
	// The jitter parts callers who began together.
	ctx, cancel := context.WithTimeout(p.c.r.Context(), p.wait+rand.N(p.wait/16+1))
	defer cancel()
	if stopping, ok := ctx.Value(stoppingKey{}).(context.Context); ok {
		defer context.AfterFunc(stopping, func() { p.c.s.later(cancel) })()
	}

	// First of all the node has to be where the caller is: it never answers older.
	first := s.once(ctx, muster.ReadOptions{Cursor: p.index})
	if first.err != nil && !first.unknown() {
		if p.c.r.Context().Err() == nil && errors.Is(first.err, context.DeadlineExceeded) && muster.CodeOf(first.err) == muster.CodeInternal {
			first.err = muster.Errorf(muster.CodeBehind, "this node did not reach index %d within the wait", p.index).WithHint("ask another node, or try again")
		}
		return first
	}
	if p.bounded {
		if first = bounded(p, ctx, s); first.err != nil && !first.unknown() {
			return first
		}
	}
	return heldFor(p, s, ctx, first)
}

// heldFor holds back first, and what comes after it, until there is news and
// those who wait for it may be woken.
func heldFor[T any](p poll, s source[T], ctx context.Context, first reading[T]) reading[T] {
	p.c.leave()
	due := s.newer(first, p.index)
	for last := first; ; {
		changed, woken := last.info.Changed, (<-chan time.Time)(nil)
		if due || last.unknown() != first.unknown() || last.err == nil && !s.same(first.value, last.value) {
			left := p.c.s.pace.turn(s.pace, last.info.Index, time.Now())
			if left == 0 {
				return last
			}
			changed, woken = nil, time.NewTimer(left).C
		}
		select {
		case <-changed:
		case <-woken:
		case <-ctx.Done():
			// The answer is that of this moment, as old as it is now.
			return bounded(p, p.c.r.Context(), s)
		}
		if last = bounded(p, ctx, s); last.err != nil && !last.unknown() {
			if ctx.Err() != nil {
				return bounded(p, p.c.r.Context(), s)
			}
			return last
		}
	}
}
