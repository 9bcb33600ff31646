package lease

import (
	"math/rand/v2"
	"time"
)

// Pace: a client is told to beat again after about a third of its TTL, so that
// two heartbeats may be lost; under load after up to half of it, so that one may.
const (
	maxStretch = 1500 // thousandths of TTL/3
	// The load is measured by how long a renewal takes from its arrival at the
	// leader to the majority: a quiet network needs a millisecond or two.
	easyBeat = 50 * time.Millisecond
	hardBeat = 250 * time.Millisecond
)

// next is when to beat again: TTL/3 × stretch, and up to a tenth less at random,
// so that clients that began together drift apart.
func next(ttl time.Duration, stretch int) time.Duration {
	d := ttl / 3 * time.Duration(stretch) / 1000
	return max(d-rand.N(d/10+1), 100*time.Millisecond).Round(time.Millisecond)
}

// load is a smoothed time a renewal takes.
type load struct{ mean time.Duration }

func (l *load) note(d time.Duration) { l.mean += (d - l.mean) / 8 }

// stretch is by how many thousandths to stretch the pace.
func (l *load) stretch() int {
	over := min(max(l.mean-easyBeat, 0), hardBeat-easyBeat)
	return 1000 + int((maxStretch-1000)*over/(hardBeat-easyBeat))
}

// shedMeter counts renewals taken and refused, by the second, over a minute.
type shedMeter struct {
	seconds [shedSeconds]struct {
		second      int64
		taken, shed uint64
	}
}

const (
	shedSeconds = int64(maxWindow/time.Second) + 1
	// shedShare: refused ones count when they are more than one in that many.
	shedShare = 1000
)

func (m *shedMeter) add(now time.Duration, taken, shed uint64) {
	second := int64(now / time.Second)
	s := &m.seconds[second%shedSeconds]
	if s.second != second {
		s.second, s.taken, s.shed = second, 0, 0
	}
	s.taken += taken
	s.shed += shed
}

// shedding reports whether so many renewals were refused over the last TTL that
// silence proves nothing.
func (m *shedMeter) shedding(now, ttl time.Duration) bool {
	first := int64((now - Window(ttl)) / time.Second)
	var taken, shed uint64
	for i := range m.seconds {
		if s := &m.seconds[i]; s.second >= first {
			taken += s.taken
			shed += s.shed
		}
	}
	return shed*shedShare > taken+shed
}
