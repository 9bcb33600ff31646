package httpapi

import (
	"net/netip"
	"sync"
)

// addressCap counts what every address has open, and lets none have more than
// most. Loopback may have any number: there stands a proxy or the operator.
type addressCap struct {
	most int

	mu   sync.Mutex
	open map[netip.Addr]int // guarded by mu; no entry is 0
}

// enter reports whether an address may open another; if so, leave has to be called
// at its end.
func (a *addressCap) enter(from netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[from] >= a.most && !from.IsLoopback() {
		return false
	}
	if a.open == nil {
		a.open = make(map[netip.Addr]int)
	}
	a.open[from]++
	return true
}

func (a *addressCap) leave(from netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[from]--; a.open[from] == 0 {
		delete(a.open, from)
	}
}

// addressOf is the address in a "host:port", as it is counted; invalid where there
// is none.
func addressOf(hostPort string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
