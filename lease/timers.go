package lease

import (
	"container/heap"
	"time"

	"github.com/muster-registry/muster"
)

// timers are the ends the leader brings about besides leases: remove_after on
// the monotonic clock, counted from when this leader saw the instance down; the
// ends of overrides on the wall clock, because people wrote them. The zero
// timers is empty.
type timers struct {
	byKey  map[muster.InstanceKey]*timer
	reaps  timerHeap // by reapAt
	untils timerHeap // by until
}

type timer struct {
	Timer
	reapAt  time.Duration
	retryAt time.Duration // not before, after a decision that changed nothing
	dropped bool
}

// set takes over the timers of an instance as the state has them now.
func (t *timers) set(c Timer, now time.Duration) {
	old := t.byKey[c.Key]
	if c.RemoveAfter <= 0 && c.Until.IsZero() {
		if old != nil {
			old.dropped = true
			delete(t.byKey, c.Key)
		}
		return
	}
	n := &timer{Timer: c, reapAt: now + c.RemoveAfter}
	if old != nil {
		old.dropped = true
		if old.RemoveAfter == c.RemoveAfter && old.RemoveAfter > 0 {
			n.reapAt = old.reapAt // the same absence: it does not start again
		}
	}
	if t.byKey == nil {
		t.byKey = map[muster.InstanceKey]*timer{}
		t.untils.wall = true
	}
	t.byKey[c.Key] = n
	if c.RemoveAfter > 0 {
		heap.Push(&t.reaps, n)
	}
	if !c.Until.IsZero() {
		heap.Push(&t.untils, n)
	}
}

// due takes out up to MaxDecision timers that are due, of one of the two kinds.
// They come back by retry, unless the state drops them.
func (t *timers) due(now time.Duration, wall time.Time) (Kind, []*timer) {
	var out []*timer
	for len(t.reaps.t) > 0 && len(out) < MaxDecision && t.reaps.t[0].reapAt <= now {
		if n := heap.Pop(&t.reaps).(*timer); !n.dropped {
			out = append(out, n)
		}
	}
	if len(out) > 0 {
		return Reap, out
	}
	// Compared by the wall clock: Until has no monotonic reading.
	for len(t.untils.t) > 0 && len(out) < MaxDecision && !wall.Before(t.untils.t[0].Until) {
		n := t.untils.t[0]
		if !n.dropped && now < n.retryAt {
			break
		}
		if heap.Pop(&t.untils); !n.dropped {
			out = append(out, n)
		}
	}
	return EndOverrides, out
}

// retry puts back timers whose decision did not end them.
func (t *timers) retry(k Kind, ts []*timer, at time.Duration) {
	for _, n := range ts {
		if n.dropped {
			continue
		}
		if k == Reap {
			n.reapAt = at
			heap.Push(&t.reaps, n)
		} else {
			n.retryAt = at
			heap.Push(&t.untils, n)
		}
	}
}

// timerHeap is a heap of timers by one of their two times.
type timerHeap struct {
	t    []*timer
	wall bool
}

func (h *timerHeap) Len() int { return len(h.t) }

func (h *timerHeap) Less(i, j int) bool {
	if h.wall {
		return h.t[i].Until.Before(h.t[j].Until)
	}
	return h.t[i].reapAt < h.t[j].reapAt
}

func (h *timerHeap) Swap(i, j int) { h.t[i], h.t[j] = h.t[j], h.t[i] }

func (h *timerHeap) Push(x any) { h.t = append(h.t, x.(*timer)) }

func (h *timerHeap) Pop() any {
	n := len(h.t) - 1
	x := h.t[n]
	h.t[n] = nil
	h.t = h.t[:n]
	return x
}
