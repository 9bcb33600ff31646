package cluster

import (
	"slices"
	"sync"
	"time"
)

// The bounds of one log entry and of what may wait to become one.
const (
	// MaxEntryOps is how many operations one log entry holds at most.
	MaxEntryOps = 2000

	maxEntryBytes = 256 << 10
	maxOpBytes    = 480 << 10 // raft suggests entries of at most 512 KiB
	maxQueueOps   = 16 << 10
	maxQueueBytes = 16 << 20
	opOverhead    = 8 // what Pack adds to an operation, roughly
)

// fate is what became of an operation. The zero fate is the careful one: an
// answer that cannot be read means that nobody knows.
type fate uint8

const (
	fateUnknown    fate = 0 // it may have been applied, or may yet be
	fateApplied    fate = 1
	fateNotApplied fate = 2 // and may be tried again by the node itself
	fateOverloaded fate = 3 // not applied, and not tried again
	fateRefused    fate = 4 // not applied, and not tried again: the session it belonged to has ended
	fateDiskFull   fate = 5 // not applied, and not tried again: the leader's disk is nearly full
)

// outcome is what became of one operation, before it is put into words for a user.
type outcome struct {
	fate   fate
	result []byte
	detail string
}

// call is what one caller wants proposed. Its operations become log entries in
// their order, because only one part of a call is ever under way at a time.
type call struct {
	ops      [][]byte
	deadline time.Time
	term     uint64 // when not 0: only by the session of this term
	here     bool   // only by this node: it was forwarded already, or is the session's own
	vital    bool   // goes before registrations, and is not refused where they are

	done chan struct{} // closed when every operation has its outcome

	// The rest is guarded by opQueue.mu, except that out belongs to the caller
	// once done is closed or once he has left.
	out []outcome
	// ops[:from] have their outcome, ops[from:next] are under way, ops[next:end]
	// wait, ops[end:] were refused.
	from, next, end int
	since           time.Time // when it came to wait
	gone            bool      // the caller has left
}

// part is a run of operations of one call: ops[from:to].
type part struct {
	call     *call
	from, to int
}

// opQueue holds the calls that wait to be shipped: into raft here, or to the leader.
type opQueue struct {
	wake chan struct{} // of size 1: something changed for whoever ships

	mu    sync.Mutex
	lists [2][]*call // guarded by mu: those with something to ship, the vital ones and the others, oldest first
	ops   int        // guarded by mu: operations that wait
	bytes int        // guarded by mu: and their size
	open  time.Time  // guarded by mu: until then there was no way on, whatever the load
}

func newOpQueue() *opQueue { return &opQueue{wake: make(chan struct{}, 1)} }

// room is the share of the queue that may be full for c to come in: batches, of
// which few fill it, leave an eighth to those who write one thing; all registrations
// leave another to what is vital; and all of that leaves something to what the
// leader itself decides, so that leases end under any load.
func (c *call) room() (ops, bytes int) {
	eighths := 7
	switch {
	case c.term != 0:
		eighths = 9
	case c.vital:
		eighths = 8
	case len(c.ops) > 1 && !c.here:
		eighths = 6
	}
	return maxQueueOps / 8 * eighths, maxQueueBytes / 8 * eighths
}

// list is where c waits: what is vital, and what the leader decides, goes first.
func (c *call) list() int {
	if c.vital || c.term != 0 {
		return 0
	}
	return 1
}

// add lets c wait its turn; false: the queue is full. A call is never too large
// for an empty queue.
func (q *opQueue) add(c *call) bool {
	c.done = make(chan struct{})
	c.out = make([]outcome, len(c.ops))
	c.end = len(c.ops)
	c.since = time.Now()
	size := sizeOf(c.ops)
	ops, bytes := c.room()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ops > 0 && (q.ops+len(c.ops) > ops || q.bytes+size > bytes) {
		return false
	}
	q.lists[c.list()] = append(q.lists[c.list()], c)
	q.ops += len(c.ops)
	q.bytes += size
	poke(q.wake)
	return true
}

func sizeOf(ops [][]byte) int {
	size := 0
	for _, op := range ops {
		size += len(op) + opOverhead
	}
	return size
}

// waiting is the number of operations that wait.
func (q *opQueue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ops
}

// take removes what fits into one log entry, the oldest first, of those calls that
// fit says may go; none: nothing may go now. A part that is larger than an entry
// should be goes alone.
func (q *opQueue) take(fit func(*call) bool) []part {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := &entry{fit: fit}
	if len(q.lists[0]) > 0 && len(q.lists[1]) > 0 && q.ops <= MaxEntryOps && q.bytes <= maxEntryBytes {
		q.inOrder(e)
	} else {
		for i, calls := range q.lists {
			q.lists[i] = e.fill(calls)
		}
	}
	for _, p := range e.parts {
		q.ops -= p.to - p.from
		q.bytes -= sizeOf(p.call.ops[p.from:p.to])
	}
	return e.parts
}

// inOrder takes what waits as it came, where all of it goes into one entry: what is
// vital has nothing to gain there, and a deregistration must not overtake the
// registration before it, whose caller may have gone. It is called with mu held.
func (q *opQueue) inOrder(e *entry) {
	all := slices.Concat(q.lists[0], q.lists[1])
	slices.SortStableFunc(all, func(a, b *call) int { return a.since.Compare(b.since) })
	q.lists = [len(q.lists)][]*call{}
	for _, c := range e.fill(all) {
		q.lists[c.list()] = append(q.lists[c.list()], c)
	}
}

// entry is what take gathers.
type entry struct {
	fit         func(*call) bool
	parts       []part
	count, size int
}

func (e *entry) full() bool { return e.count >= MaxEntryOps || e.size >= maxEntryBytes }

// fill takes what fits of the calls, and returns those with something left.
func (e *entry) fill(calls []*call) []*call {
	keep := calls[:0]
	for i, c := range calls {
		if e.full() {
			keep = append(keep, calls[i:]...)
			break
		}
		if c.from < c.next || !e.fit(c) {
			keep = append(keep, c)
			continue
		}
		for c.next < c.end && e.count < MaxEntryOps {
			n := len(c.ops[c.next]) + opOverhead
			if e.size+n > maxEntryBytes && e.count > 0 {
				e.size = maxEntryBytes // full: what follows must not overtake
				break
			}
			c.next++
			e.count++
			e.size += n
		}
		if c.next > c.from {
			e.parts = append(e.parts, part{c, c.from, c.next})
		}
		if c.next < c.end {
			keep = append(keep, c)
		}
	}
	clear(calls[len(keep):])
	return keep
}

// settle records what became of parts that were taken: outs holds one outcome per
// operation, in order. What was not applied waits again, before everything else.
func (q *opQueue) settle(parts []part, outs []outcome) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var again [len(q.lists)][]*call
	for _, p := range parts {
		n := p.to - p.from
		if q.settlePart(p, outs[:n]) {
			again[p.call.list()] = append(again[p.call.list()], p.call)
		}
		outs = outs[n:]
	}
	for i, calls := range again {
		if len(calls) > 0 {
			q.lists[i] = append(calls, q.lists[i]...)
		}
	}
	poke(q.wake)
}

// settlePart returns true when the call has to be put back into the queue.
func (q *opQueue) settlePart(p part, outs []outcome) bool {
	c := p.call
	if c.gone {
		return false
	}
	queued := c.next < c.end
	retry := retryFrom(outs)
	copy(c.out[p.from:], outs[:retry])
	c.from = p.from + retry
	if c.from < c.next {
		q.ops += c.next - c.from
		q.bytes += sizeOf(c.ops[c.from:c.next])
		c.next = c.from
	}
	if c.from == c.end {
		close(c.done)
		return false
	}
	return !queued
}

// retryFrom is the place from which a part may be shipped again: where it was not
// applied from there to its end. Were something behind it applied or unknown,
// which no node answers, then nothing is repeated.
func retryFrom(outs []outcome) int {
	i := len(outs)
	for i > 0 && outs[i-1].fate == fateNotApplied {
		i--
	}
	return i
}

// leave is the caller giving up: it returns what is known of his operations now.
// What was under way is unknown, the rest was not applied and will not be.
func (q *opQueue) leave(c *call) []outcome {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.gone = true
	for i := c.from; i < c.next; i++ {
		c.out[i] = outcome{fate: fateUnknown, detail: "the answer did not come in time"}
	}
	q.drop(c, outcome{fate: fateNotApplied})
	list := &q.lists[c.list()]
	if i := slices.Index(*list, c); i >= 0 {
		*list = slices.Delete(*list, i, i+1)
	}
	return c.out
}

// drop gives all that waits of c one outcome.
func (q *opQueue) drop(c *call, o outcome) {
	q.ops -= c.end - c.next
	q.bytes -= sizeOf(c.ops[c.next:c.end])
	for i := c.next; i < c.end; i++ {
		c.out[i] = o
	}
	c.end = c.next
}

// refuse gives one outcome to all that waits of the calls that match says.
func (q *opQueue) refuse(match func(*call) bool, o outcome) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, calls := range q.lists {
		q.lists[i] = slices.DeleteFunc(calls, func(c *call) bool {
			if !match(c) {
				return false
			}
			q.drop(c, o)
			if c.from == c.end {
				close(c.done)
			}
			return true
		})
	}
}
