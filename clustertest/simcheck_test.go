package clustertest_test

import (
	"slices"
	"time"
)

// checkLeases holds what was promised against what happened.
func (w *world) checkLeases() (stats leaseStats) {
	w.mu.Lock()
	h, leases := w.history, slices.Clone(w.leases)
	w.mu.Unlock()
	outages := h.outages()
	for _, o := range outages {
		w.trace("outage %v - %v", o.from.Sub(w.began), o.to.Sub(w.began))
	}
	now := time.Now()
	for _, l := range leases {
		stats.leases++
		ended, gone := h.ended(l.keys[0], l.id.Index())
		for _, k := range l.keys[1:] {
			if at, ok := h.ended(k, l.id.Index()); ok != gone || !at.Equal(ended) {
				w.fail("state", "%s and %s hang on lease %s and ended at different times", l.keys[0], k, l.id)
			}
		}
		if gone && ended.Before(l.acked.Add(l.ttl)) {
			w.fail("early", "%s (ttl %v) ended at %v, %v after the sending of its last acknowledged heartbeat", l.id, l.ttl, ended.Sub(w.began), ended.Sub(l.acked))
		}
		if !gone && l.alive {
			continue
		}
		sent := l.tries[0]
		for _, at := range l.tries {
			if !gone || !at.After(ended) {
				sent = later(sent, at)
			}
		}
		if l.hazy {
			stats.hazy++
			continue
		}
		limit := h.latest(outages, sent, l.ttl)
		limit.by = limit.by.Add(w.hold)
		switch {
		case !gone && now.After(limit.by):
			w.fail("late", "%s (ttl %v) was last heard from at %v and has not ended, which it should have by %v", l.id, l.ttl, sent.Sub(w.began), limit.by.Sub(w.began))
		case gone && ended.After(limit.by):
			w.fail("late", "%s %v (ttl %v), last heard from at %v, ended at %v, %v late; it should have by %v: %d failovers, %d of them not clean",
				l.id, l.keys, l.ttl, sent.Sub(w.began), ended.Sub(w.began), ended.Sub(sent)-l.ttl, limit.by.Sub(w.began), limit.failovers, limit.fallbacks)
		case gone:
			stats.note(ended.Sub(sent)-l.ttl, limit.by.Sub(ended), limit)
		}
	}
	return stats
}

// leaseStats is what became of the leases of a run.
type leaseStats struct {
	leases, hazy int
	ended        [4]int           // in calm; in an outage or so without a failover; across clean failovers; with a fallback
	late         [4]time.Duration // the latest after its TTL
	left         [4]time.Duration // the least before its bound
}

func (s *leaseStats) note(late, left time.Duration, l limit) {
	class := 1
	switch {
	case l.fallbacks > 0:
		class = 3
	case l.failovers > 0:
		class = 2
	case l.calm:
		class = 0
	}
	s.merge(class, 1, late, left)
}

func (s *leaseStats) add(o leaseStats) {
	s.leases, s.hazy = s.leases+o.leases, s.hazy+o.hazy
	for i := range s.ended {
		s.merge(i, o.ended[i], o.late[i], o.left[i])
	}
}

func (s *leaseStats) merge(class, ended int, late, left time.Duration) {
	if ended == 0 {
		return
	}
	if s.ended[class] == 0 || left < s.left[class] {
		s.left[class] = left
	}
	s.ended[class] += ended
	s.late[class] = max(s.late[class], late)
}
