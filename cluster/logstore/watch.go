package logstore

import (
	"context"
	"fmt"
	"time"
)

const (
	defaultHangLimit = 5 * time.Second
	// stallGap is by how much the watchdog must be late to conclude that the
	// whole process stood still, and not the disk.
	stallGap = 500 * time.Millisecond
)

// Run watches over the writes until ctx ends. It returns the store's failure if
// it had to give up because a write hung, else nil.
//
// The time the whole process stands still (a stopped process, a paused machine)
// does not count: the disk may have been done long ago, and nobody looked.
func (s *Store) Run(ctx context.Context) error {
	s.armed.Store(true)
	every := max(s.cfg.HangLimit/20, time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.closed:
			return nil
		case <-tick.C:
		}
		now := time.Now()
		if gap := now.Sub(last); gap > every+stallGap {
			s.inflight.forgive(gap)
		}
		last = now
		if s.Hung() >= s.cfg.HangLimit {
			return s.fail(&ExitError{Code: ExitIO, Err: fmt.Errorf("writing the raft log %s: %w after %s", s.path, ErrHung, s.cfg.HangLimit)})
		}
	}
}

// Hung returns how long the oldest unfinished write has been running, 0 if none
// is.
func (s *Store) Hung() time.Duration { return s.inflight.longest() }
