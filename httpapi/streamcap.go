package httpapi

import (
	"net/netip"
	"sync"
	"time"
)

// streamRetry is when somebody with too many streams may try again.
const streamRetry = 5 * time.Second

// streamCap counts the streams of every address, and lets none have more than
// most. Loopback may have any number: there stands a proxy or the operator.
type streamCap struct {
	most int

	mu   sync.Mutex
	open map[netip.Addr]int // guarded by mu; no entry is 0
}

// enter reports whether an address may open another stream; if so, leave has to
// be called at its end.
func (s *streamCap) enter(from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[from] >= s.most && !from.IsLoopback() {
		return false
	}
	if s.open == nil {
		s.open = make(map[netip.Addr]int)
	}
	s.open[from]++
	return true
}

func (s *streamCap) leave(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[from]--; s.open[from] == 0 {
		delete(s.open, from)
	}
}
