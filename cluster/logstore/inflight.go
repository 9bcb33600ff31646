package logstore

import (
	"sync"
	"time"
)

// inflight knows since when the oldest unfinished write has been running.
type inflight struct {
	mu     sync.Mutex // guards what follows
	next   uint64
	starts map[uint64]time.Time
}

// begin notes a write; the returned function notes its end.
func (f *inflight) begin(now time.Time) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.starts == nil {
		f.starts = make(map[uint64]time.Time)
	}
	id := f.next
	f.next++
	f.starts[id] = now
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.starts, id)
	}
}

// longest returns how long the oldest unfinished write has been running, 0 if
// there is none.
func (f *inflight) longest() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var longest time.Duration
	for _, start := range f.starts {
		longest = max(longest, time.Since(start), time.Nanosecond)
	}
	return longest
}

// forgive takes d off the age of every unfinished write.
func (f *inflight) forgive(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, start := range f.starts {
		f.starts[id] = start.Add(min(d, time.Since(start)))
	}
}
