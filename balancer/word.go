package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// word is all that a pick reads of what was learnt of an instance: the requests in
// flight, the moving average of the latency, and when that was last measured. It is
// one word, so that the three always belong together, and so that those of very
// many instances stay in the processor's cache.
//
//	20 bits  requests in flight
//	22 bits  when the latency was measured, in ticks
//	22 bits  latency: the upper bits of a float32 of nanoseconds; 0: never measured
type word struct{ bits atomic.Uint64 }

const (
	costBits  = 22
	stampBits = 22
	oneInWord = 1 << (costBits + stampBits) // one request in flight
	costMask  = 1<<costBits - 1
	stampMask = 1<<stampBits - 1
	costDrop  = 31 - costBits // of a positive float32
	// tickShift makes ticks of moments: 67 ms. Ticks come round after 78 hours; what
	// is that old was forgotten long before.
	tickShift = 26
)

// latencyMemory is the time constant of the moving average: what was measured
// counts less and less, after latencyMemory no more than 2/5.
const latencyMemory = 10 * time.Second

func (w *word) inflight() int64 { return int64(w.bits.Load() >> (costBits + stampBits)) }

// begin counts a request in flight, end counts it out.
func (w *word) begin() { w.bits.Add(oneInWord) }

func (w *word) end() {
	for {
		v := w.bits.Load()
		if v < oneInWord || w.bits.CompareAndSwap(v, v-oneInWord) {
			return
		}
	}
}

// take counts a request in flight if no more than most are then.
func (w *word) take(most int64) bool {
	for {
		v := w.bits.Load()
		if int64(v>>(costBits+stampBits)) >= most {
			return false
		}
		if w.bits.CompareAndSwap(v, v+oneInWord) {
			return true
		}
	}
}

// reading is a word taken apart.
type reading struct {
	inflight int64
	cost     float64 // ns, as it was when measured; 0: never measured
	age      float64 // of the cost, in units of latencyMemory
}

func (w *word) read(at moment) reading {
	v := w.bits.Load()
	ticks := (uint64(at>>tickShift) - v>>costBits) & stampMask
	return reading{
		inflight: int64(v >> (costBits + stampBits)),
		cost:     float64(math.Float32frombits(uint32(v&costMask) << costDrop)),
		age:      float64(ticks) * (float64(1<<tickShift) / float64(latencyMemory)),
	}
}

// latency is the average as it is now, in nanoseconds.
func (r reading) latency() float64 { return r.cost * fade(r.age) }

// fade is how much of an average counts after some time: e^-age, but for a tail
// that is a little longer, at a fraction of the price.
func fade(age float64) float64 { return 1 / (1 + age + age*age/2) }

// observe takes a latency into the average: a peak at once, anything less by and
// by. A failure is often quick, and never makes the average better.
func (w *word) observe(t tally, at moment) {
	for t.latency > 0 {
		v := w.bits.Load()
		r := w.read(at)
		cost := r.latency()
		switch sample := float64(t.latency); {
		case sample >= cost:
			cost = sample
		case t.successes == 0:
			return
		default:
			cost += sample * (1 - fade(r.age))
		}
		next := v &^ (stampMask<<costBits | costMask)
		next |= uint64(at>>tickShift) & stampMask << costBits
		next |= max(1, uint64(math.Float32bits(float32(cost))>>costDrop))
		if w.bits.CompareAndSwap(v, next) {
			return
		}
	}
}

// forget forgets what was measured.
func (w *word) forget() {
	for {
		v := w.bits.Load()
		if v&costMask == 0 || w.bits.CompareAndSwap(v, v&^(stampMask<<costBits|costMask)) {
			return
		}
	}
}
