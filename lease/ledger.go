package lease

import (
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

// ledger is what the keeper of a leading node knows of all leases, and what it
// is to decide about them. The keeper's mutex guards it.
type ledger struct {
	table    *Table
	gov      *Governor
	maxHold  time.Duration
	records  map[muster.LeaseID]*record
	single   map[muster.ServiceKey][]muster.ServiceKey // shared by the records that hang in just that one
	wheel    wheel
	timers   timers
	due      []*record    // with due set; others are stale
	judged   []Due        // scratch of takeDue
	held     []heldRecord // oldest first
	suspects int
	slice    int       // held leases that may be let go now
	returned []*record // with returning set; others are stale
	dead     []*record // with confirmed set; others are stale

	unsettled []*flight     // whose outcome is unknown
	notBefore time.Duration // no decision before, after one was refused
	armed     bool          // gathered: leases may be expired
}

// heldRecord is a record the governor holds since at. It is stale when the record
// is not suspect, or suspect since another time.
type heldRecord struct {
	rec *record
	at  time.Duration
}

func newLedger(t *Table, s Switches, maxHold time.Duration) *ledger {
	return &ledger{
		table: t, gov: NewGovernor(s), maxHold: maxHold,
		records: map[muster.LeaseID]*record{}, single: map[muster.ServiceKey][]muster.ServiceKey{},
	}
}

// load fills an empty ledger. Who lives now is taken to have lived all along,
// and what is held to have been lost now: a change of leaders does not end the
// protection.
func (l *ledger) load(recs []Record, ts []Timer, now time.Duration) {
	for i := range recs {
		l.add(&recs[i], now-2*maxWindow, now)
	}
	for i := range ts {
		l.timers.set(ts[i], now)
	}
}

func (l *ledger) add(r *Record, since, now time.Duration) {
	rec := &record{id: r.ID, generation: r.Generation, ttl: r.TTL, services: l.share(r.Services), gathered: never}
	l.records[r.ID] = rec
	l.gov.Join(since, rec.services)
	if r.Suspect {
		l.hold(rec, now)
		return
	}
	l.arm(rec, now)
}

// share returns a copy of ks; leases in one and the same service share it.
func (l *ledger) share(ks []muster.ServiceKey) []muster.ServiceKey {
	if len(ks) != 1 {
		return slices.Clone(ks)
	}
	s := l.single[ks[0]]
	if s == nil {
		s = []muster.ServiceKey{ks[0]}
		l.single[ks[0]] = s
	}
	return s
}

// arm begins to watch for the end of a lease, from when the shadows have been
// gathered on.
func (l *ledger) arm(rec *record, now time.Duration) {
	if l.armed && rec.slot == 0 && !rec.suspect && !rec.due && rec.flight == nil {
		l.wheel.add(rec, l.deadline(rec, now))
	}
}

// armAll begins to watch for the end of all leases.
func (l *ledger) armAll(now time.Duration) {
	l.armed = true
	l.wheel.cur = int64(now / slotTime)
	for _, rec := range l.records {
		l.arm(rec, now)
	}
}

func (l *ledger) deadline(rec *record, now time.Duration) time.Duration {
	at, ok := l.table.Heard(rec.id, now)
	if !ok { // never: the table follows the state as the ledger does
		at = now
	}
	return at + rec.ttl
}

// apply follows the state. The table has followed it already.
func (l *ledger) apply(c *Changes, now time.Duration) {
	for i := range c.Leases {
		ch := &c.Leases[i]
		rec := l.records[ch.ID]
		switch {
		case ch.Gone && rec != nil:
			l.drop(rec, now)
		case ch.Gone:
		case rec == nil:
			l.add(&ch.Record, now, now)
		default:
			l.update(rec, ch, now)
		}
	}
	for i := range c.Timers {
		l.timers.set(c.Timers[i], now)
	}
}

func (l *ledger) update(rec *record, ch *Change, now time.Duration) {
	if !slices.Equal(rec.services, ch.Services) {
		if !rec.suspect {
			l.gov.Detach(now, rec.services)
			l.gov.Attach(now, ch.Services)
		}
		rec.services = l.share(ch.Services)
	}
	rearm := ch.Heard || rec.ttl != ch.TTL
	rec.generation, rec.ttl = ch.Generation, ch.TTL
	switch {
	case ch.Suspect && !rec.suspect:
		l.hold(rec, now)
	case !ch.Suspect && rec.suspect:
		l.unhold(rec, now)
	case rearm:
		rec.due = false
		l.wheel.remove(rec)
		l.arm(rec, now)
	}
}

func (l *ledger) drop(rec *record, now time.Duration) {
	delete(l.records, rec.id)
	l.wheel.remove(rec)
	rec.gone = true
	if rec.suspect {
		l.suspects--
	} else {
		l.gov.Leave(now, rec.services)
	}
	rec.due, rec.suspect, rec.returning = false, false, false
}

func (l *ledger) hold(rec *record, now time.Duration) {
	l.wheel.remove(rec)
	rec.suspect, rec.due, rec.heldAt = true, false, now
	l.gov.Leave(now, rec.services)
	l.count(rec, now)
	l.suspects++
	l.held = append(l.held, heldRecord{rec, now})
}

func (l *ledger) unhold(rec *record, now time.Duration) {
	rec.suspect, rec.returning, rec.confirmed, rec.counted = false, false, false, false
	l.gov.Join(now, rec.services)
	l.suspects--
	l.arm(rec, now)
}

// count tells the governor of a loss, once for each.
func (l *ledger) count(rec *record, now time.Duration) {
	if !rec.counted {
		rec.counted = true
		l.gov.RanOut(now, rec.services)
	}
}

// renew notes that a lease was heard from; the table has been told. The caller
// has made sure that no removal of it is in flight.
func (l *ledger) renew(rec *record, now time.Duration) {
	switch {
	case rec.suspect:
		if !rec.returning {
			rec.returning = true
			l.returned = append(l.returned, rec)
		}
	case rec.due:
		rec.due = false
		l.arm(rec, now)
	}
}

// sweep finds the leases that ran out. While renewals are being shed nothing
// runs out: who cannot be heard is not gone.
func (l *ledger) sweep(now time.Duration, shedding func(ttl time.Duration) bool) {
	l.wheel.advance(now, func(rec *record) {
		deadline := l.deadline(rec, now)
		switch {
		case deadline > now:
			l.wheel.add(rec, deadline)
		case shedding(rec.ttl):
			l.wheel.add(rec, now+time.Second)
		default:
			rec.due = true
			l.due = append(l.due, rec)
		}
	})
}

// confirm marks suspect leases as dead by an active check: they are not held any
// longer.
func (l *ledger) confirm(ids []muster.LeaseID) {
	for _, id := range ids {
		if rec := l.records[id]; rec != nil && rec.suspect {
			rec.confirmed = true
			l.dead = append(l.dead, rec)
		}
	}
}
