package balancer

import "sync/atomic"

// chunkSize is how many slots come at once.
const chunkSize = 64

// chunk holds slots of a service: each is the word of one instance, which picks
// read, and the record behind it.
type chunk struct {
	words   [chunkSize]word
	records [chunkSize]atomic.Pointer[record]
}

// slots hands out slots. It belongs to a service, whose lock guards it.
type slots struct {
	chunks []*chunk
	// free are slots to be used again; limbo those of records that were just
	// forgotten: somebody may still pick by a roster that holds them.
	free, limbo []uint32
}

// grow makes room for n more slots, next to one another where many are missing.
func (s *slots) grow(n int) {
	if n -= len(s.free); n <= 0 {
		return
	}
	block := make([]chunk, (n+chunkSize-1)/chunkSize)
	first := uint32(len(s.chunks) * chunkSize)
	fresh := make([]uint32, 0, len(block)*chunkSize)
	for k := len(block)*chunkSize - 1; k >= 0; k-- {
		fresh = append(fresh, first+uint32(k)) // the lowest is taken first
	}
	for k := range block {
		s.chunks = append(s.chunks, &block[k])
	}
	s.free = append(fresh, s.free...)
}

// take gives a slot to a record.
func (s *slots) take(r *record) {
	s.grow(1)
	slot := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	c := s.chunks[slot/chunkSize]
	r.slot, r.word = slot, &c.words[slot%chunkSize]
	r.word.bits.Store(0)
	c.records[slot%chunkSize].Store(r)
}

// release frees the slot of a forgotten record, at the next settle but one.
func (s *slots) release(r *record) { s.limbo = append(s.limbo, r.slot) }

// settle frees the slots released before.
func (s *slots) settle() {
	s.free = append(s.free, s.limbo...)
	s.limbo = s.limbo[:0]
}
