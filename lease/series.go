package lease

import "time"

// seriesGrain is the resolution of a series.
const seriesGrain = 100 * time.Millisecond

// series is a count over the last minute: a step function of time, with one step
// per grain in which it changed.
type series struct {
	steps []step // by time; the first is the oldest value that still matters
}

type step struct {
	at time.Duration
	v  int
}

// add changes the count. Times do not go backwards.
func (s *series) add(now time.Duration, delta int) {
	now = now / seriesGrain * seriesGrain
	n := len(s.steps)
	switch {
	case n == 0:
		s.steps = append(s.steps, step{now, delta})
	case s.steps[n-1].at >= now:
		s.steps[n-1].v += delta
	default:
		s.steps = append(s.steps, step{now, s.steps[n-1].v + delta})
		s.prune(now)
	}
}

// prune drops what is older than any window, but for the value it leaves.
func (s *series) prune(now time.Duration) {
	n := 0
	for n+1 < len(s.steps) && s.steps[n+1].at < now-maxWindow {
		n++
	}
	if n > 0 {
		s.steps = append(s.steps[:0], s.steps[n:]...)
	}
}

// value is the count now.
func (s *series) value() int {
	if n := len(s.steps); n > 0 {
		return s.steps[n-1].v
	}
	return 0
}

// at is the count at time t; 0 before the first step.
func (s *series) at(t time.Duration) int {
	for n := len(s.steps) - 1; n >= 0; n-- {
		if s.steps[n].at <= t {
			return s.steps[n].v
		}
	}
	return 0
}
