package client

import (
	"testing"
	"time"
	"unsafe"
)

// TestAge: a clock that is set back makes nothing younger, and one that goes on while
// the other stands still, as in a sleep of the machine, counts.
func TestAge(t *testing.T) {
	began := time.Now()
	later := began.Add(3 * time.Second)
	for name, c := range map[string]struct {
		now  time.Time
		want time.Duration
	}{
		"both clocks":              {later, 3 * time.Second},
		"the wall clock set back":  {wallMoved(later, -time.Hour), 3 * time.Second},
		"the machine slept 1 hour": {wallMoved(later, time.Hour), time.Hour + 3*time.Second},
	} {
		if got := age(c.now, began); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// wallMoved is t on a machine whose wall clock was moved by d, whole seconds, and its
// monotonic clock was not: what no method of time.Time makes.
func wallMoved(t time.Time, d time.Duration) time.Time {
	const secondsFrom = 30 // the bit of time.Time's first word at which the seconds begin
	*(*uint64)(unsafe.Pointer(&t)) += uint64(d/time.Second) << secondsFrom
	return t
}
