package balancer

import (
	"container/heap"
	"crypto/rand"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// The life of a ticket.
const (
	DefaultTicketTTL = muster.DefaultTicketTTL
	MaxTicketTTL     = muster.MaxTicketTTL
)

// tickets are the choices that were given away as tickets and not yet reported.
// What expires does so when somebody next picks, asks for a ticket or reports.
type tickets struct {
	most int
	next atomic.Int64 // the moment of the first expiry

	mu    sync.Mutex
	byID  map[string]*ticket // guarded by mu
	queue ticketQueue        // guarded by mu
}

type ticket struct {
	id      string
	rec     *record
	expires moment
	place   int // in the queue
}

func (t *tickets) init(most int) {
	t.most, t.byID = most, map[string]*ticket{}
	t.next.Store(math.MaxInt64)
}

// Ticket gives away a choice that Start made: whoever holds the ticket reports what
// became of it, to this node. It runs out after ttl (0 is DefaultTicketTTL; more
// than MaxTicketTTL is refused as invalid_duration), and then the choice is dropped.
// The ticket begins with the id of this node and cannot be guessed.
func (b *Balancer) Ticket(now time.Time, c Choice, ttl time.Duration) (string, error) {
	if c.rec == nil {
		return "", muster.Errorf(muster.CodeInternal, "a ticket for a choice that is not in flight")
	}
	if ttl == 0 {
		ttl = DefaultTicketTTL
	}
	if ttl < 0 || ttl > MaxTicketTTL {
		return "", muster.Errorf(muster.CodeInvalidDuration, "ticket_ttl %s is not between 0 and %s", ttl, MaxTicketTTL)
	}
	id := rand.Text()
	if b.cfg.Node != "" {
		id = b.cfg.Node + "." + id
	}
	at := b.moment(now)
	t := &b.tickets
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(b, at)
	if len(t.queue) >= t.most {
		t.end(t.queue[0])
		b.metrics.ticketsLost[lostEvicted].Inc()
	}
	k := &ticket{id: id, rec: c.rec, expires: at.add(ttl)}
	t.byID[id] = k
	heap.Push(&t.queue, k)
	t.next.Store(int64(t.queue[0].expires))
	return id, nil
}

// Redeem reports what became of the choice a ticket stands for. The error is
// unknown_ticket: it never was, it ran out, or it was reported before.
func (b *Balancer) Redeem(now time.Time, id string, o Outcome) error {
	at := b.moment(now)
	t := &b.tickets
	t.mu.Lock()
	t.expire(b, at)
	k := t.byID[id]
	if k != nil {
		t.end(k)
	}
	t.mu.Unlock()
	if k == nil {
		return muster.Errorf(muster.CodeUnknownTicket, "the ticket is unknown to this node: it ran out, was reported before, or was never given")
	}
	b.learn(k.rec, o.tally(), at)
	b.sweep(at)
	return nil
}

// TicketNode returns the id of the node that gave a ticket, "" where it names none.
func TicketNode(id string) string {
	if n := strings.LastIndexByte(id, '.'); n > 0 {
		return id[:n]
	}
	return ""
}

// tryExpire lets go of the tickets that ran out, unless somebody is at it.
func (t *tickets) tryExpire(b *Balancer, at moment) {
	if t.mu.TryLock() {
		defer t.mu.Unlock()
		t.expire(b, at)
	}
}

// expire lets go of the tickets that ran out. The caller holds mu.
func (t *tickets) expire(b *Balancer, at moment) {
	for len(t.queue) > 0 && t.queue[0].expires <= at {
		t.end(t.queue[0])
		b.metrics.ticketsLost[lostExpired].Inc()
	}
}

// end takes a ticket out, and its choice out of flight. The caller holds mu.
func (t *tickets) end(k *ticket) {
	heap.Remove(&t.queue, k.place)
	delete(t.byID, k.id)
	k.rec.end()
	if len(t.queue) == 0 {
		t.next.Store(math.MaxInt64)
	} else {
		t.next.Store(int64(t.queue[0].expires))
	}
}

// waiting is how many tickets wait for their report.
func (t *tickets) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue)
}

// ticketQueue is a heap of tickets, the one that expires first on top.
type ticketQueue []*ticket

func (q ticketQueue) Len() int           { return len(q) }
func (q ticketQueue) Less(i, j int) bool { return q[i].expires < q[j].expires }

func (q ticketQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *ticketQueue) Push(x any) {
	k := x.(*ticket)
	k.place = len(*q)
	*q = append(*q, k)
}

func (q *ticketQueue) Pop() any {
	last := len(*q) - 1
	k := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return k
}
