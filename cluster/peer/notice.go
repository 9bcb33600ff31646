package peer

import (
	"log/slog"
	"sync"
	"time"
)

// noticeEvery is how often a line about the same kind of stranger is logged.
const noticeEvery = 10 * time.Second

// notices logs what strangers cause, so that they cannot fill the log.
type notices struct {
	logger *slog.Logger
	mu     sync.Mutex // guards what follows
	kinds  map[string]*notice
}

type notice struct {
	next       time.Time
	suppressed int
}

// warn logs msg unless a line of that kind was logged just now. The kinds are a
// fixed set.
func (n *notices) warn(kind, msg string, args ...any) {
	now := time.Now()
	n.mu.Lock()
	if n.kinds == nil {
		n.kinds = make(map[string]*notice)
	}
	k := n.kinds[kind]
	if k == nil {
		k = &notice{}
		n.kinds[kind] = k
	}
	if now.Before(k.next) {
		k.suppressed++
		n.mu.Unlock()
		return
	}
	suppressed := k.suppressed
	k.next, k.suppressed = now.Add(noticeEvery), 0
	n.mu.Unlock()
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	n.logger.Warn(msg, args...)
}
