package cluster

import (
	"context"
	"errors"
	"sync"
)

// errStopped says that whatever was to be waited for will not happen: the node,
// or the leadership, has ended.
var errStopped = errors.New("stopped")

// rounds runs fn once for many callers: each gets the outcome of a run that
// began after it asked. One run is under way at a time, those who come meanwhile
// share the next.
type rounds[T any] struct {
	fn      func(ctx context.Context) (T, error)
	kick    chan struct{}
	stopped chan struct{} // closed when run has returned

	mu   sync.Mutex
	next *round[T] // guarded by mu; nil while nobody waits
}

type round[T any] struct {
	done chan struct{}
	val  T
	err  error
}

func newRounds[T any](fn func(ctx context.Context) (T, error)) *rounds[T] {
	return &rounds[T]{fn: fn, kick: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// do waits for a run that begins after this call.
func (r *rounds[T]) do(ctx context.Context) (T, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round[T]{done: make(chan struct{})}
	}
	mine := r.next
	r.mu.Unlock()
	poke(r.kick)
	var zero T
	select {
	case <-mine.done:
		return mine.val, mine.err
	case <-r.stopped:
		return zero, errStopped
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// run carries out the rounds, once, until ctx is done.
func (r *rounds[T]) run(ctx context.Context) {
	defer close(r.stopped)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
			if next := r.take(); next != nil {
				next.val, next.err = r.fn(ctx)
				close(next.done)
			}
		}
	}
}

func (r *rounds[T]) take() *round[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.next
	r.next = nil
	return next
}

// poke wakes whoever reads c, a channel of size 1, without waiting for him.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
