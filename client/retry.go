package client

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// delays returns the pauses before one try after the other: exponential with full
// jitter, each anywhere between nothing and twice its interval.
func delays(first, most time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first/2, most/2
	b.Multiplier, b.RandomizationFactor = 2, 1
	return b
}

// pause waits, and reports whether ctx still goes on. Where ctx would end
// meanwhile it does not begin to wait: who is out of time is told at once.
func pause(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// The measures of a retry budget.
const (
	budgetShare  = 0.1 // of a retry that each first try pays for
	budgetSecond = 1   // retries a second that are free
	budgetStart  = 10
	budgetMost   = 100
)

// budget bounds retries to a share of the traffic, so that a registry or a service
// that fails under load is not given more of it. It is safe for concurrent use.
type budget struct {
	mu     sync.Mutex
	tokens float64   // guarded by mu
	at     time.Time // guarded by mu: when tokens was right
	begun  bool      // guarded by mu
}

// settle is called with mu held.
func (b *budget) settle(now time.Time) {
	if !b.begun {
		b.tokens, b.begun = budgetStart, true
	} else if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.tokens+d.Seconds()*budgetSecond, budgetMost)
	}
	b.at = now
}

// earn notes a first try.
func (b *budget) earn(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(now)
	b.tokens = min(b.tokens+budgetShare, budgetMost)
}

// spend asks for a retry.
func (b *budget) spend(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
