package cluster

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func all(*call) bool { return true }

func callOf(n, size int) *call {
	c := &call{}
	for i := range n {
		c.ops = append(c.ops, fmt.Appendf(make([]byte, 0, size), "%0*d", size, i))
	}
	return c
}

func TestTakeKeepsWithinAnEntry(t *testing.T) {
	for name, tc := range map[string]struct {
		calls []*call
		want  []int // operations per entry
	}{
		"many small":        {[]*call{callOf(1500, 1), callOf(1500, 1)}, []int{2000, 1000}},
		"few large":         {[]*call{callOf(1, 200<<10), callOf(1, 100<<10)}, []int{1, 1}},
		"one over the size": {[]*call{callOf(1, 300<<10), callOf(1, 1)}, []int{1, 1}},
		"one long call":     {[]*call{callOf(4100, 1)}, []int{2000, 2000, 100}},
	} {
		t.Run(name, func(t *testing.T) {
			q := newOpQueue()
			for _, c := range tc.calls {
				if !q.add(c) {
					t.Fatal("the queue is full")
				}
			}
			var got []int
			for {
				parts := q.take(all)
				if parts == nil {
					break
				}
				n := 0
				for _, p := range parts {
					n += p.to - p.from
				}
				got = append(got, n)
				q.settle(parts, slices.Repeat([]outcome{{fate: fateApplied}}, n))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("entries of %v operations, want %v", got, tc.want)
			}
			for _, c := range tc.calls {
				<-c.done
			}
			if q.ops != 0 || q.bytes != 0 {
				t.Errorf("%d operations of %d bytes are left", q.ops, q.bytes)
			}
		})
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newOpQueue()
	if !q.add(callOf(maxQueueOps+1, 1)) {
		t.Error("an empty queue refused a large call")
	}
	if q.add(callOf(1, 1)) {
		t.Error("a full queue took a call")
	}
}

// TestQueueKeepsRoom: batches do not fill the queue, and what the leader itself
// decides finds a place in one that is full for all others.
func TestQueueKeepsRoom(t *testing.T) {
	q := newOpQueue()
	for q.add(callOf(256, 1)) {
	}
	if q.ops != maxQueueOps/4*3 {
		t.Errorf("batches fill %d places, want %d", q.ops, maxQueueOps/4*3)
	}
	for q.add(callOf(1, 1)) {
	}
	if q.ops != maxQueueOps/8*7 {
		t.Errorf("single writes fill %d places, want %d", q.ops, maxQueueOps/8*7)
	}
	for q.add(vitalCall()) {
	}
	if q.ops != maxQueueOps {
		t.Errorf("with what is vital %d places are full, want %d", q.ops, maxQueueOps)
	}
	decided := callOf(100, 1)
	decided.term = 7
	if !q.add(decided) {
		t.Error("there is no place for the leader's own decisions")
	}
}

// TestQueue plays any course of adding, shipping, failing and leaving, and checks
// that nothing is shipped twice unless it certainly was not applied, that
// operations of a call are shipped in order, and that the accounts hold.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &queueModel{q: newOpQueue(), shipped: make(map[*call]map[int]fate)}
		t.Repeat(map[string]func(*rapid.T){"add": m.add, "take": m.take, "settle": m.settle, "leave": m.leave, "": m.check})
	})
}

type queueModel struct {
	q       *opQueue
	waiting []*call                // whose callers have not left
	flying  [][]part               // what was taken and not settled
	shipped map[*call]map[int]fate // the fates of what was shipped
}

func (m *queueModel) add(t *rapid.T) {
	c := callOf(rapid.IntRange(1, 3000).Draw(t, "ops"), 8)
	c.vital = rapid.Bool().Draw(t, "vital")
	if m.q.add(c) {
		m.waiting = append(m.waiting, c)
		m.shipped[c] = make(map[int]fate)
	}
}

func (m *queueModel) take(t *rapid.T) {
	parts := m.q.take(all)
	for _, p := range parts {
		for i := p.from; i < p.to; i++ {
			if f, again := m.shipped[p.call][i]; again && f != fateNotApplied {
				t.Fatalf("operation %d is shipped again after fate %d", i, f)
			}
			if i > 0 {
				if _, before := m.shipped[p.call][i-1]; !before {
					t.Fatalf("operation %d is shipped before the one before it", i)
				}
			}
			m.shipped[p.call][i] = fateUnknown
		}
	}
	if parts != nil {
		m.flying = append(m.flying, parts)
	}
}

func (m *queueModel) settle(t *rapid.T) {
	if len(m.flying) == 0 {
		t.Skip("nothing under way")
	}
	i := rapid.IntRange(0, len(m.flying)-1).Draw(t, "shipment")
	parts := m.flying[i]
	m.flying = slices.Delete(m.flying, i, i+1)
	var outs []outcome
	for _, p := range parts {
		f := rapid.SampledFrom([]fate{fateApplied, fateUnknown, fateNotApplied}).Draw(t, "fate")
		for i := p.from; i < p.to; i++ {
			outs = append(outs, outcome{fate: f})
			m.shipped[p.call][i] = f
		}
	}
	m.q.settle(parts, outs)
}

func (m *queueModel) leave(t *rapid.T) {
	if len(m.waiting) == 0 {
		t.Skip("nobody waits")
	}
	i := rapid.IntRange(0, len(m.waiting)-1).Draw(t, "call")
	c := m.waiting[i]
	m.waiting = slices.Delete(m.waiting, i, i+1)
	for j, o := range m.q.leave(c) {
		if f, was := m.shipped[c][j]; o.fate == fateNotApplied && was && f != fateNotApplied {
			t.Fatalf("operation %d is told not applied, its fate is %d", j, f)
		}
	}
}

func (m *queueModel) check(t *rapid.T) {
	ops := 0
	for _, c := range slices.Concat(m.q.lists[:]...) {
		ops += c.end - c.next
	}
	if ops != m.q.ops || m.q.ops < 0 || m.q.bytes < 0 {
		t.Fatalf("%d operations wait, the account says %d (%d bytes)", ops, m.q.ops, m.q.bytes)
	}
}

func TestRefusingWhatWaits(t *testing.T) {
	q := newOpQueue()
	c := callOf(2500, 1)
	q.add(c)
	parts := q.take(all)
	q.refuse(all, outcome{fate: fateRefused})
	select {
	case <-c.done:
		t.Fatal("the call is done while a part of it is under way")
	default:
	}
	q.settle(parts, slices.Repeat([]outcome{{fate: fateApplied}}, 2000))
	<-c.done
	if c.out[1999].fate != fateApplied || c.out[2000].fate != fateRefused {
		t.Errorf("the outcomes are %v, %v", c.out[1999], c.out[2000])
	}
}
