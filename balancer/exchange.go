package balancer

import (
	"time"

	"github.com/muster-registry/muster"
)

// Bounds of the exchange.
const (
	// MaxPacket is the size of a packet at most, in bytes: it fits a datagram.
	MaxPacket = 1200
	// maxPackets is how many packets one Export makes; what is left waits for the next.
	maxPackets = 32
	// tellTimes is in how many Exports an ejection or its end is told, because a
	// packet may be lost.
	tellTimes = 3
	// maxImported bounds the instances of which something is known only by hearsay
	// or that nobody picks from any more: beyond, unknown ones are not learnt of.
	maxImported = 200_000
)

// Export returns what this node heard of its instances since the last Export, as
// packets for all other nodes: outcomes that were reported here, and ejections that
// were decided here. It is meant to be called about once a second. What the other
// nodes say is not passed on, so that every node tells every other one.
func (b *Balancer) Export(now time.Time) [][]byte {
	at := b.moment(now)
	b.sweep(at)
	b.queueMu.Lock()
	queue := b.queue
	b.queue = nil
	b.queueMu.Unlock()
	bySvc := map[*service][]*record{}
	var order []*service
	for _, r := range queue {
		if bySvc[r.svc] == nil {
			order = append(order, r.svc)
		}
		bySvc[r.svc] = append(bySvc[r.svc], r)
	}
	w := packetWriter{}
	for _, s := range order {
		w.service(s.key)
		for _, r := range bySvc[s] {
			if len(w.packets) >= maxPackets {
				b.enqueue(r)
				continue
			}
			e, again := r.report(at)
			if again {
				b.enqueue(r)
			}
			if e.sum() > 0 || e.state != tellNothing {
				w.entry(&e)
			}
		}
	}
	packets := w.finish()
	b.metrics.sent.Add(float64(len(packets)))
	return packets
}

// line puts r in line for the next Export, if there will be one; ch is what this
// node has just decided of it. The caller holds r's lock.
func (b *Balancer) line(r *record, ch change) {
	if b.cfg.Node == "" {
		return
	}
	if ch != unchanged {
		r.tell = tellTimes
	}
	if !r.queued {
		r.queued = true
		b.enqueue(r)
	}
}

func (b *Balancer) enqueue(r *record) {
	b.queueMu.Lock()
	b.queue = append(b.queue, r)
	b.queueMu.Unlock()
}

// report takes what there is to tell of r. It also says whether to tell it again.
func (r *record) report(at moment) (e entry, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e = entry{id: r.id, tally: r.unsent}
	r.unsent = tally{}
	if r.queued = r.tell > 1; r.tell == 0 {
		return e, false
	}
	r.tell--
	switch k := &r.breaker; {
	case k.state == Open && k.until > at:
		e.state, e.left, e.strikes = tellOpen, time.Duration(k.until-at), k.strikes
	case k.state == Closed:
		e.state = tellClosed
	}
	return e, r.tell > 0
}

// Import takes in a packet that another node exported. The error says why a packet
// was refused; what it holds before the fault may have been taken in.
func (b *Balancer) Import(now time.Time, from string, packet []byte) error {
	at := b.moment(now)
	if from == b.cfg.Node {
		return nil
	}
	b.metrics.received.Inc()
	err := readPacket(packet, func(k muster.ServiceKey, e *entry) { b.take(k, e, at) })
	if err != nil {
		b.metrics.refused.Inc()
	}
	return err
}

// take takes in one entry of a packet.
func (b *Balancer) take(k muster.ServiceKey, e *entry, at moment) {
	if b.records.Load() >= maxImported && !b.knows(k, e.id) {
		return
	}
	svc := b.service(k, nil, at)
	r := svc.named(e.id)
	r.mu.Lock()
	told, found := unchanged, unchanged
	if e.state == tellClosed || e.state == tellOpen && svc.settings.Load().MaxEjected > 0 {
		told = r.breaker.adopt(e.left, e.strikes, at)
	}
	if e.sum() > 0 {
		if found = r.hear(e.tally, at); found != unchanged {
			b.line(r, found) // two halves of the truth made this node see it first
		}
	}
	r.touched = at
	r.mu.Unlock()
	b.after(r, told)
	b.after(r, found)
}

// knows reports whether there is a record of an instance.
func (b *Balancer) knows(k muster.ServiceKey, id string) bool {
	b.mu.Lock()
	s := b.services[k]
	b.mu.Unlock()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records[id] != nil
}
