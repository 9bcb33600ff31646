package lease

import (
	"iter"
	"sync"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fault"
)

const (
	// TickEvery is how often a table wants to be ticked.
	TickEvery = 100 * time.Millisecond
	// StallAfter is the gap between ticks from which on a node was not running.
	StallAfter = 500 * time.Millisecond
	// ProofLasts is how long after a leader is known to have been at work it is taken
	// to have been: a leader sends a Renew every two ticks at least, and who has read
	// one knows only that it was at work at the one before.
	ProofLasts = 2 * TickEvery
)

// Table is a node's shadow table: when each lease was last heard from. It holds
// no deadline and no TTL. Times are durations since an origin of the caller's,
// and now never goes backwards. A Table is safe for concurrent use.
//
// Before each read and each merge it settles its own stall: time in which this
// node did not run, or ran too late to take renewals, counts for no lease.
type Table struct {
	mu    sync.Mutex // guards all below; nothing that locks is called under it
	heard heardMap
	// early holds renewals of leases that this node has not applied yet. They may
	// have been acknowledged by our ack, so they must be in every copy.
	early      map[muster.LeaseID]time.Duration
	earlyFirst uint64 // lowest index among early

	applied uint64        // muster index the table has followed the state to
	tick    time.Duration // last tick
	born    time.Duration // since when it is worth counting
	voter   bool
	acked   time.Duration // until when a leader is known to have been at work, see Ack; or when it was made
	ackTerm uint64        // the term of that leader
	told    told          // the outages that are out of the ages
	stalls  int
	woke    time.Duration // the end of the last stall

	// since is when a leader of term followed was first heard of.
	followed uint64
	since    time.Duration
}

// NewTable returns an empty table. It counts for nobody until the node is known
// to be a voter.
func NewTable(now time.Duration) *Table {
	return &Table{early: map[muster.LeaseID]time.Duration{}, tick: now, born: now, acked: now}
}

// Tick settles a stall and remembers that the node runs.
func (t *Table) Tick(now time.Duration, voter bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(now)
	t.tick = max(t.tick, now)
	if voter && !t.voter {
		// Renewals go to voters: what was acknowledged before is not in here.
		t.born = now
	}
	t.voter = voter
}

// stalled reports whether a gap in which nothing was heard is a stall of our own.
func stalled(gap time.Duration) bool {
	return gap > StallAfter && !fault.Is(fault.NoStallGuard)
}

// settle takes a stall out of the ages. The caller holds mu.
func (t *Table) settle(now time.Duration) {
	gap := now - t.tick
	if !stalled(gap) {
		return
	}
	t.tick, t.woke = now, now
	t.stalls++
	t.told.stalled += gap
	t.since = min(t.since+gap, now)
	t.shift(gap, now)
}

// shift makes everybody heard from by that much later, never later than now. The
// table's own beginning is one of the times it knows: what it noted then is no
// older, and proves nothing until it is a TTL old in time that counts.
//
// It looks at every lease, and so is not done for nothing: a Renew is acknowledged many
// times a second, and hardly ever tells of an outage.
func (t *Table) shift(by, now time.Duration) {
	if by <= 0 {
		return
	}
	t.born = max(t.born, min(t.born+by, now))
	t.heard.each(func(_ muster.LeaseID, at *time.Duration) { *at = max(*at, min(*at+by, now)) })
	for id, at := range t.early {
		t.early[id] = max(at, min(at+by, now))
	}
}

// Apply follows the state up to index: granted leases, and those a registration
// touched, are heard from now, which is later than their owners' sending; gone
// ones are forgotten.
func (t *Table) Apply(index uint64, changes []Change, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(now)
	for i := range changes {
		switch c := &changes[i]; {
		case c.Gone:
			t.heard.remove(c.ID)
		case c.Heard:
			t.heard.set(c.ID, now)
		default:
			if t.heard.get(c.ID) == nil {
				t.heard.set(c.ID, now)
			}
		}
	}
	t.applied = max(t.applied, index)
	t.pruneEarly()
}

// pruneEarly drops the early renewals that the state has passed: those leases
// were granted, and so heard from later, or are gone.
func (t *Table) pruneEarly() {
	if len(t.early) == 0 || t.earlyFirst > t.applied {
		return
	}
	t.earlyFirst = 1<<64 - 1
	for id := range t.early {
		if id.Index() <= t.applied {
			delete(t.early, id)
		} else {
			t.earlyFirst = min(t.earlyFirst, id.Index())
		}
	}
}

// Reset starts again with the leases of a state that was replaced as a whole: all
// are heard from now, and the table is as young as after a start, because those
// ages are of its own making.
func (t *Table) Reset(index uint64, ids iter.Seq[muster.LeaseID], now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tick = max(t.tick, now)
	t.heard = heardMap{}
	for id := range ids {
		t.heard.set(id, now)
	}
	t.applied = index
	t.pruneEarly()
	t.born = now
}

// Merge notes renewals. Ids that the state has passed and does not hold are
// ignored; ids it has not reached yet are kept.
func (t *Table) Merge(ids []muster.LeaseID, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(now)
	for _, id := range ids {
		if at := t.heard.get(id); at != nil {
			*at = max(*at, now)
		} else if index := id.Index(); index > t.applied {
			if len(t.early) == 0 || index < t.earlyFirst {
				t.earlyFirst = index
			}
			t.early[id] = now
		}
	}
}

// TakeOver makes the table that of a new leader. Its copy of asOf was gathered with
// those of others; gathered is given each lease with the time this table would
// have it, the outage taken out, and returns what all of them say. What was heard
// since asOf stays. It locks the table while it calls gathered.
func (t *Table) TakeOver(o Outage, asOf, now time.Duration, gathered func(id muster.LeaseID, own time.Duration) time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(now)
	news, by := t.told.news(o, now-t.acked), t.told.missing(o, now-t.acked)
	if !t.told.any {
		// What the outage is to a table that was made in it would grow until we tell
		// ourselves of it, and be taken out a second time.
		t.told.any, t.told.total, t.acked = true, o.Total-news, now-news
	}
	t.told.stalled += by
	t.born = max(t.born, min(t.born+by, now))
	t.heard.each(func(id muster.LeaseID, at *time.Duration) {
		if *at <= asOf {
			*at = min(gathered(id, *at+by), now)
		}
	})
}

// Follow notes that a leader of that term takes renewals: who is heard from now on is
// heard after the outage before it, which the leader may not know yet.
func (t *Table) Follow(term uint64, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(now)
	if term > t.followed {
		t.followed, t.since = term, now
	}
}

// Ack notes that this node acknowledges a Renew of that term, or as its leader
// that a majority has, and takes the outages it has missed out of the ages. A Renew
// of an older term, or that was overtaken by a later one, says nothing new.
//
// When a Renew is read is no sign of when it was sent: it may have lain in the
// socket of a node that was stopped, or on the way, while its leader was lost. What
// is known is that the leader was at work at proof (never: nothing is known), because
// the Renew was written later; renewals got through until then, and for ProofLasts.
// Time since acked that the leader tells as an outage is one and the same as that
// which the next leader would take for one, so acked moves with it; and what was
// settled as a stall was taken out ahead of news of it, which only a Renew written
// after the stall is sure to hold.
func (t *Table) Ack(term uint64, o Outage, proof, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(now)
	if term < t.ackTerm || term == t.ackTerm && o.Total < t.told.total {
		return
	}
	news := t.told.news(o, now-t.acked)
	by := t.told.missing(o, now-t.acked)
	if term > t.ackTerm && term == t.followed {
		before := min(by, o.Last)
		t.shift(before, t.since)
		by -= before
	}
	t.shift(by, now)
	t.acked, t.ackTerm = min(t.acked+news, now), term
	t.told = told{any: true, total: o.Total, stalled: max(0, t.told.stalled-max(0, news))}
	if proof >= t.woke {
		t.acked, t.told.stalled = max(t.acked, min(proof+ProofLasts, now)), 0
	}
}

// Heard returns when a lease was last heard from.
func (t *Table) Heard(id muster.LeaseID, now time.Duration) (at time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(now)
	if p := t.heard.get(id); p != nil {
		return *p, true
	}
	return 0, false
}

// Len is the number of leases the table holds.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heard.len
}

// Stalls is the number of stalls that were settled.
func (t *Table) Stalls() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stalls
}

// Shadow is a copy of a table, or of a part of it, as ages.
type Shadow struct {
	// Age is the age of the table itself, without the time that was taken out of
	// all ages; 0 on a node that is no voter.
	Age time.Duration
	// AckAge is how long ago a leader is known to have been at work, see
	// (*Table).Ack, or the table was made if none is, in time that passed.
	AckAge time.Duration
	// told is what it knows of outages.
	told told
	// Applied is the muster index up to which the table has followed the state:
	// it has heard of every registration until there.
	Applied uint64
	IDs     []muster.LeaseID
	Ages    []time.Duration
}

// Copy returns the part-th of parts of the table.
func (t *Table) Copy(part, parts int, now time.Duration) Shadow {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(now)
	s := Shadow{AckAge: max(0, now-t.acked), told: t.told, Applied: t.applied}
	if t.voter {
		s.Age = max(0, now-t.born)
	}
	room := (t.heard.len+len(t.early))/parts + 16
	s.IDs, s.Ages = make([]muster.LeaseID, 0, room), make([]time.Duration, 0, room)
	take := func(id muster.LeaseID, at *time.Duration) {
		if parts == 1 || hashID(id)%uint64(parts) == uint64(part) {
			s.IDs, s.Ages = append(s.IDs, id), append(s.Ages, max(0, now-*at))
		}
	}
	t.heard.each(take)
	for id, at := range t.early {
		take(id, &at)
	}
	return s
}
