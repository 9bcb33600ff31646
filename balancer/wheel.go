package balancer

import "math/bits"

// wheel finds the owner of a point on a line on which every position owns a stretch
// as long as its weight. It is a search in the cumulated weights that a guide table
// shortens to a step or two (Chen and Asau 1974; Devroye, Non-Uniform Random Variate
// Generation, III.2.4). It is kept small, because a pick reads it at random places.
type wheel struct {
	// ends[i] is where the stretch of position i ends and that of i+1 begins.
	ends []uint32
	// guide[b] is the position that owns the point b<<shift.
	guide []int32
	shift uint
}

func newWheel(n int, weight func(pos int) uint32) *wheel {
	w := &wheel{ends: make([]uint32, n)}
	var sum uint32
	for pos := range w.ends {
		sum += weight(pos)
		w.ends[pos] = sum
	}
	// From one to two positions for each part of the guide.
	w.shift = uint(bits.Len32(sum / uint32(n)))
	w.guide = make([]int32, (sum-1)>>w.shift+2)
	pos := int32(0)
	for b := range w.guide {
		for int(pos) < n-1 && uint64(w.ends[pos]) <= uint64(b)<<w.shift {
			pos++
		}
		w.guide[b] = pos
	}
	return w
}

// sum is the length of the line.
func (w *wheel) sum() uint64 { return uint64(w.ends[len(w.ends)-1]) }

// start is where the stretch of pos begins; that of n, behind the last, is the sum.
func (w *wheel) start(pos int32) uint64 {
	if pos == 0 {
		return 0
	}
	return uint64(w.ends[pos-1])
}

// find returns the position that owns x, which is below the sum.
func (w *wheel) find(x uint64) int32 {
	b := x >> w.shift
	low, high := w.guide[b], w.guide[b+1]
	for high-low > 8 { // a crowd of light ones between heavy ones
		if mid := low + (high-low)/2; uint64(w.ends[mid]) <= x {
			low = mid + 1
		} else {
			high = mid
		}
	}
	for uint64(w.ends[low]) <= x {
		low++
	}
	return low
}
