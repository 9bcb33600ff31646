package cluster

import (
	"math/rand/v2"
	"time"

	"github.com/muster-registry/muster"
)

// leaderWordFor is how long a node believes what the leader said of its load.
const leaderWordFor = 5 * freshEvery

// backlog is what an opQueue has before it.
type backlog struct {
	wait time.Duration // of the oldest operation, as far as load is to blame
	// over says that more waits than the next entry holds. Where it does not, a new
	// operation is no burden: it goes as soon as anything does.
	over bool
}

// behind reports whether a new registration would come too late to be of use: what
// waits is too much (a standing queue; see Nichols and Jacobson, "Controlling queue
// delay", 2012), or nothing goes at all.
func (b backlog) behind() bool {
	return b.over && b.wait > muster.MaxProposalWait || b.wait > muster.MaxProposalStall
}

// backlog looks at what waits.
func (q *opQueue) backlog(now time.Time) backlog {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := backlog{over: q.ops > MaxEntryOps || q.bytes > maxEntryBytes}
	for _, calls := range q.lists {
		for _, c := range calls {
			if c.from < c.next {
				continue // a part of it is under way
			}
			since := c.since
			if q.open.After(since) {
				since = q.open
			}
			b.wait = max(b.wait, now.Sub(since))
			break // the others came later
		}
	}
	return b
}

// closed notes that nothing can be shipped for a reason that is not load: there is
// no leader, or it is handing over.
func (q *opQueue) closed(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = now
}

// applyGap is how many entries are committed, as far as this node knows, and not
// applied here.
func (n *Node) applyGap() uint64 {
	r := n.raft.Load()
	if r == nil {
		return 0
	}
	applied := n.fsm.Applied()
	return max(r.CommitIndex(), applied) - applied
}

// behind reports whether this node, leading, has more to do than it can in time.
func (n *Node) behind() bool {
	return n.session.Load() != nil && n.queue.backlog(time.Now()).behind()
}

// Overloaded is why this node takes no registrations just now, nil where it does:
// its own state is far behind what is committed, or the leader has more operations
// waiting than it can propose in time. What is vital is taken all the same.
func (n *Node) Overloaded() error {
	if _, ready := n.fresh.get(); ready && n.applyGap() > muster.MaxApplyGap {
		return overloaded("this node is more than %d log entries behind", muster.MaxApplyGap)
	}
	if n.behind() || n.session.Load() == nil && n.book.saysBehind() {
		return overloaded("the leader has more writes waiting than it can log in time")
	}
	return nil
}

// overloaded is the answer to those who are sent away until there is less to do.
func overloaded(format string, args ...any) error {
	return muster.Errorf(muster.CodeOverloaded, format, args...).
		WithHint("try again as late as Retry-After says: renewals, deregistrations and reads go on meanwhile").
		WithRetryAfter(time.Second + rand.N(4*time.Second))
}

// refused counts operations that were sent away.
func (m *metrics) refused(c *call) {
	class := "write"
	if c.list() == 0 {
		class = "vital"
	}
	m.shed.WithLabelValues(class).Add(float64(len(c.ops)))
}
