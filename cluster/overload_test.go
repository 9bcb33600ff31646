package cluster

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
)

func vitalCall() *call {
	c := callOf(1, 1)
	c.vital = true
	return c
}

// TestBehind: what waits too long is judged by how much it is.
func TestBehind(t *testing.T) {
	for name, tc := range map[string]struct {
		ops  int
		wait time.Duration
		want bool
	}{
		"nothing waits":           {0, time.Hour, false},
		"one entry, for a while":  {MaxEntryOps, muster.MaxProposalStall, false},
		"one entry, for too long": {MaxEntryOps, muster.MaxProposalStall + 1, true},
		"a backlog, for a moment": {MaxEntryOps + 1, muster.MaxProposalWait, false},
		"a backlog, for a while":  {MaxEntryOps + 1, muster.MaxProposalWait + 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newOpQueue()
				for range tc.ops {
					q.add(callOf(1, 1))
				}
				time.Sleep(tc.wait)
				if got := q.backlog(time.Now()).behind(); got != tc.want {
					t.Errorf("%d operations that waited %s: behind is %v", tc.ops, tc.wait, got)
				}
				q.closed(time.Now())
				if b := q.backlog(time.Now()); b.behind() || b.wait != 0 {
					t.Errorf("after a time without a leader: %+v", b)
				}
			})
		})
	}
}

// TestLargeOperationsAreABacklogToo: an entry is bounded in bytes as well.
func TestLargeOperationsAreABacklogToo(t *testing.T) {
	q := newOpQueue()
	for range 3 {
		q.add(callOf(1, maxEntryBytes/2))
	}
	if b := q.backlog(time.Now().Add(2 * muster.MaxProposalWait)); !b.behind() {
		t.Errorf("three halves of an entry: %+v", b)
	}
}

// TestVitalGoesFirst: behind a backlog of registrations a deregistration is in the
// next entry, also when it comes again because it was not applied.
func TestVitalGoesFirst(t *testing.T) {
	q := newOpQueue()
	writes, vital := callOf(3*MaxEntryOps, 1), vitalCall()
	q.add(writes)
	q.add(vital)
	for range 2 {
		parts := q.take(all)
		if len(parts) != 2 || parts[0].call != vital || parts[1].to-parts[1].from != MaxEntryOps-1 {
			t.Fatalf("the entry holds %+v", parts)
		}
		q.settle(parts, slices.Repeat([]outcome{{fate: fateNotApplied}}, MaxEntryOps))
	}
	if b := q.backlog(time.Now()); !b.over {
		t.Errorf("what waits again is no backlog: %+v", b)
	}
}

// TestSmallWaitGoesInOrder: where all that waits goes into one entry a deregistration
// does not overtake the registration before it.
func TestSmallWaitGoesInOrder(t *testing.T) {
	q := newOpQueue()
	calls := []*call{callOf(2, 1), vitalCall(), callOf(1, 1), vitalCall()}
	for i, c := range calls {
		q.add(c)
		c.since = time.UnixMilli(int64(i))
	}
	for range 2 {
		parts := q.take(all)
		if len(parts) != len(calls) {
			t.Fatalf("the entry holds %+v", parts)
		}
		for i, p := range parts {
			if p.call != calls[i] {
				t.Errorf("the place %d of the entry has %+v", i, p)
			}
		}
		q.settle(parts, slices.Repeat([]outcome{{fate: fateNotApplied}}, 5))
	}
}

// TestAskedWhileStarting: a node that is taken for the leader while it starts has no
// raft yet, and leads nothing.
func TestAskedWhileStarting(t *testing.T) {
	n := &Node{timing: timing{heartbeat: time.Hour}}
	if s := n.awaitSession(t.Context()); s != nil {
		t.Errorf("its session is %+v", s)
	}
}

// TestTheLeadersWordGrowsOld: a follower believes a leader for a second.
func TestTheLeadersWordGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{}
		b.learn(&freshAnswer{behind: true})
		if !b.saysBehind() {
			t.Error("the word of the leader is not taken")
		}
		time.Sleep(leaderWordFor)
		if b.saysBehind() {
			t.Error("the word of the leader is taken for too long")
		}
	})
}
