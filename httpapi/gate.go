package httpapi

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
)

// gate lets in so many at once. Who finds no room waits a moment; the newest goes
// first, and the oldest is sent away where too many wait: under overload the newest
// is the one whose caller is still there. A gate without room is open to all.
type gate struct {
	room   int
	inWork prometheus.Gauge
	shed   prometheus.Counter
	slow   slowBodies

	mu      sync.Mutex
	inside  int         // guarded by mu
	waiting []chan bool // guarded by mu: the oldest first; each is told once
}

// enter reports whether a request may go on; if so, leave has to be called.
func (g *gate) enter(ctx context.Context) bool {
	ok := g.room == 0 || g.pass(ctx)
	if ok {
		g.inWork.Inc()
	} else {
		g.shed.Inc()
	}
	return ok
}

func (g *gate) pass(ctx context.Context) bool {
	g.mu.Lock()
	if g.inside < g.room {
		g.inside++
		g.mu.Unlock()
		return true
	}
	if len(g.waiting) >= waitingEach*g.room {
		g.waiting[0] <- false
		g.waiting = slices.Delete(g.waiting, 0, 1)
	}
	mine := make(chan bool, 1) // so that nobody who tells it waits
	g.waiting = append(g.waiting, mine)
	g.mu.Unlock()

	enough := time.NewTimer(muster.AdmissionWait)
	defer enough.Stop()
	select {
	case ok := <-mine:
		return ok
	case <-enough.C:
	case <-ctx.Done():
	}
	g.mu.Lock()
	at := slices.Index(g.waiting, mine)
	if at >= 0 {
		g.waiting = slices.Delete(g.waiting, at, at+1)
	}
	g.mu.Unlock()
	return at < 0 && <-mine // or it was told in this very moment
}

func (g *gate) leave() {
	g.inWork.Dec()
	if g.room == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if last := len(g.waiting) - 1; last >= 0 {
		g.waiting[last] <- true // it takes the place that is given up
		g.waiting = slices.Delete(g.waiting, last, last+1)
		return
	}
	g.inside--
}
