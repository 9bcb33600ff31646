package httpapi

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// longAgo is a deadline that is over.
var longAgo = time.Unix(1, 0)

// slowBody watches over the reading of one body. A place among the requests of its
// class is for work: who is slow to send what is to be worked on loses it, and comes
// in again once all of it is there. Few may be that slow at once, because what has
// come of their bodies is kept meanwhile; the others are cut off.
type slowBody struct {
	c     *call
	rc    *http.ResponseController
	timer *time.Timer
	done  chan struct{} // closed when lose has run
	// kept and cut are lose's, and read after done.
	kept, cut bool
}

// watchBody begins with the reading of a body; end ends it.
func (c *call) watchBody(rc *http.ResponseController) *slowBody {
	b := &slowBody{c: c, rc: rc, done: make(chan struct{})}
	b.timer = time.AfterFunc(muster.SlowBodyAfter, b.lose)
	return b
}

func (b *slowBody) lose() {
	defer close(b.done)
	b.c.leave()
	if b.kept = b.c.gate.slow.enter(); !b.kept {
		b.cut = true
		_ = b.rc.SetReadDeadline(longAgo) // ends the read; what has no deadlines goes on
	}
}

// end returns what the caller is told where he was cut off, or finds no room any more.
func (b *slowBody) end(read error) error {
	if b.timer.Stop() {
		return read
	}
	<-b.done
	if b.kept {
		b.c.gate.slow.leave()
	}
	switch {
	case b.cut && read != nil:
		b.c.gate.shed.Inc()
		return muster.Errorf(muster.CodeOverloaded, "the body comes slowly, and this node waits for as many of that kind as it can").
			WithHint("send the request in one piece, or ask another node").WithRetryAfter(shedRetry())
	case read != nil:
		return read
	case !b.c.gate.enter(b.c.r.Context()):
		return shed(b.c.route.class)
	}
	b.c.left.Store(false)
	return nil
}

// slowBodies counts the bodies of a class that are waited for outside its gate.
type slowBodies struct{ open atomic.Int64 }

func (s *slowBodies) enter() bool {
	if s.open.Add(1) > muster.MaxSlowBodies {
		s.open.Add(-1)
		return false
	}
	return true
}

func (s *slowBodies) leave() { s.open.Add(-1) }
