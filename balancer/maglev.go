package balancer

import (
	"cmp"
	"slices"
)

// tableSizes are the numbers of slots of the hash tables: primes, of which the
// first that gives every instance slotsEach is taken. They are few and far apart,
// because growing from one to the next moves nearly every key.
var tableSizes = []int{65_537, 1_048_573}

const slotsEach = 32

// buildTable fills the lookup table of Maglev (Eisenbud et al., NSDI 2016, §3.4):
// every member has its own order of all slots, given by its hash, and in rounds all
// take the first slot of their order that is still free. The result holds the
// member of each slot. A member takes part in a share of the rounds that is its
// weight over the highest, so that the slots go by weight; no weights are equal ones.
func buildTable(hashes []uint64, weights []uint32) []int32 {
	size := tableSizes[len(tableSizes)-1]
	for _, s := range slices.Backward(tableSizes) {
		if s >= slotsEach*len(hashes) {
			size = s
		}
	}
	slots := make([]int32, size)
	for s := range slots {
		slots[s] = -1
	}
	orders := make([]order, len(hashes))
	for n, h := range hashes {
		orders[n] = order{next: uint32(h % uint64(size)), step: uint32(mix(h)%uint64(size-1)) + 1}
	}
	classes := classesOf(len(hashes), weights)
	for free := size; ; {
		for c := range classes {
			if !classes[c].turn(classes[0].weight) {
				continue
			}
			for _, n := range classes[c].members {
				slots[orders[n].take(slots)] = n
				if free--; free == 0 {
					return slots
				}
			}
		}
	}
}

// order is where a member stands in its order of the slots.
type order struct{ next, step uint32 }

// take returns the member's first slot that is free.
func (o *order) take(slots []int32) uint32 {
	for {
		s := o.next
		if o.next += o.step; o.next >= uint32(len(slots)) {
			o.next -= uint32(len(slots))
		}
		if slots[s] < 0 {
			return s
		}
	}
}

// class is all members of one weight.
type class struct {
	weight  uint32
	members []int32
	have    uint64
}

// turn reports whether the class takes part in this round.
func (c *class) turn(highest uint32) bool {
	c.have += uint64(c.weight)
	if c.have < uint64(highest) {
		return false
	}
	c.have -= uint64(highest)
	return true
}

// classesOf sorts n members into classes, the heaviest first.
func classesOf(n int, weights []uint32) []class {
	byWeight := map[uint32]int{}
	var classes []class
	for m := range int32(n) {
		w := uint32(1)
		if weights != nil {
			w = weights[m]
		}
		c, ok := byWeight[w]
		if !ok {
			c = len(classes)
			byWeight[w] = c
			classes = append(classes, class{weight: w})
		}
		classes[c].members = append(classes[c].members, m)
	}
	slices.SortFunc(classes, func(a, b class) int { return cmp.Compare(b.weight, a.weight) })
	return classes
}
