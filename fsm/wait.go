package fsm

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// mark is a number that only rises, and that can be waited for.
type mark struct {
	value atomic.Uint64
	mu    sync.Mutex
	// waiting are the calls that wait, the lowest target first. Guarded by mu.
	waiting waiters
}

type waiter struct {
	target  uint64
	reached chan struct{}
	place   int
}

// raise sets the value and wakes whoever waits for it or less.
func (m *mark) raise(v uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.value.Store(v)
	for len(m.waiting) > 0 && m.waiting[0].target <= v {
		close(heap.Pop(&m.waiting).(*waiter).reached)
	}
}

func (m *mark) wait(ctx context.Context, target uint64) error {
	if m.value.Load() >= target {
		return nil
	}
	w := &waiter{target: target, reached: make(chan struct{})}
	m.mu.Lock()
	if m.value.Load() >= target {
		m.mu.Unlock()
		return nil
	}
	heap.Push(&m.waiting, w)
	m.mu.Unlock()

	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.place < 0 { // reached meanwhile
		return nil
	}
	heap.Remove(&m.waiting, w.place)
	return fmt.Errorf("waiting for index %d, at %d: %w", target, m.value.Load(), context.Cause(ctx))
}

// waiters is a heap by target.
type waiters []*waiter

func (h waiters) Len() int           { return len(h) }
func (h waiters) Less(a, b int) bool { return h[a].target < h[b].target }

func (h waiters) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].place, h[b].place = a, b
}

// Push is part of heap.Interface.
func (h *waiters) Push(x any) {
	w := x.(*waiter)
	w.place = len(*h)
	*h = append(*h, w)
}

// Pop is part of heap.Interface.
func (h *waiters) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	w.place = -1
	return w
}
