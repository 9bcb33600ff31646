package health

import (
	"context"
	"sync"
)

// Faults breaks, for tests, the way from one node's probes to their targets. The
// zero value breaks nothing. It is safe for concurrent use.
type Faults struct {
	mu  sync.Mutex
	cut map[string]chan struct{} // guarded by mu; closed when healed
}

// Cut loses what probes send to "host:port": they run into their timeouts.
func (f *Faults) Cut(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut == nil {
		f.cut = make(map[string]chan struct{})
	}
	if f.cut[address] == nil {
		f.cut[address] = make(chan struct{})
	}
}

// Heal undoes Cut.
func (f *Faults) Heal(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.cut[address]; c != nil {
		close(c)
		delete(f.cut, address)
	}
}

// pass waits for as long as address is cut off.
func (f *Faults) pass(ctx context.Context, address string) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	healed := f.cut[address]
	f.mu.Unlock()
	if healed == nil {
		return nil
	}
	select {
	case <-healed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
