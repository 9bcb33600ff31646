package httpapi

import (
	"sync"
	"time"
)

// wakeApart is the least time between two wakes of the long polls of one service:
// one that changes all the time is told about twenty times a second, not as often
// as it changes. Streams are paced by their hub.
const wakeApart = 50 * time.Millisecond

// paceKey is what polls are paced by: a service, or a list of services.
type paceKey struct {
	list            bool
	namespace, name string // of a list, name is its prefix
}

// pacer remembers what was told last. All polls that are told the same index are
// one wake, however long it takes.
type pacer struct {
	mu   sync.Mutex
	last map[paceKey]wake // guarded by mu; one of longer ago may be missing
}

type wake struct {
	index uint64
	at    time.Time
}

// turn returns 0 where a poll may be told of index now, or else how long it has to
// wait, to be told of what is there then.
func (p *pacer) turn(k paceKey, index uint64, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.last[k]
	if ok && index <= w.index {
		return 0
	}
	if left := wakeApart - now.Sub(w.at); ok && left > 0 {
		return left
	}
	if len(p.last) >= 1024 {
		for k, w := range p.last {
			if now.Sub(w.at) >= wakeApart {
				delete(p.last, k)
			}
		}
	}
	if p.last == nil {
		p.last = make(map[paceKey]wake)
	}
	p.last[k] = wake{index, now}
	return 0
}
