package peer

import "sync"

// lifetime knows what is alive within a port: each thing enters and leaves, and
// at the end everything is told to end and waited for.
type lifetime struct {
	mu    sync.Mutex // guards what follows
	ended bool
	next  uint64
	stops map[uint64]func()
	wg    sync.WaitGroup // Add only with mu held and ended unset
}

// enter adds a thing that stop ends; stop may be nil and may be called more than
// once. It reports false when it is too late. leave may be called more than once.
func (l *lifetime) enter(stop func()) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, false
	}
	if l.stops == nil {
		l.stops = make(map[uint64]func())
	}
	id := l.next
	l.next++
	l.stops[id] = stop
	l.wg.Add(1)
	return sync.OnceFunc(func() {
		l.mu.Lock()
		delete(l.stops, id)
		l.mu.Unlock()
		l.wg.Done()
	}), true
}

// close lets nothing in any more. Those within stay.
func (l *lifetime) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}

// stop tells everything within to end; call close first.
func (l *lifetime) stop() {
	l.mu.Lock()
	var stops []func()
	for _, stop := range l.stops {
		if stop != nil {
			stops = append(stops, stop)
		}
	}
	l.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
}

// wait returns when everything has left; call close first.
func (l *lifetime) wait() { l.wg.Wait() }
