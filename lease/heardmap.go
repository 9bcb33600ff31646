package lease

import (
	"time"

	"github.com/muster-registry/muster"
)

// heardMap maps lease ids to times: open addressing with linear probing, 16
// bytes a slot. A renewal is one probe where Go's own map needs two, and it holds
// no pointer for the collector to follow. The zero heardMap is empty. Id 0, which
// names no lease, marks a free slot.
type heardMap struct {
	slots []heardSlot // a power of two, at most seven eighths used
	len   int
}

type heardSlot struct {
	id muster.LeaseID
	at time.Duration
}

// hashID spreads ids, whose low bits are mostly zero, over all bits.
func hashID(id muster.LeaseID) uint64 {
	h := uint64(id) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// find returns the slot of id, or the free one where it would be.
func (m *heardMap) find(id muster.LeaseID) int {
	mask := len(m.slots) - 1
	n := int(hashID(id)) & mask
	for m.slots[n].id != id && m.slots[n].id != 0 {
		n = (n + 1) & mask
	}
	return n
}

// get returns where the time of id is kept, nil where it is not. It is valid
// until the next set or remove.
func (m *heardMap) get(id muster.LeaseID) *time.Duration {
	if m.len == 0 || id == 0 {
		return nil
	}
	if s := &m.slots[m.find(id)]; s.id == id {
		return &s.at
	}
	return nil
}

func (m *heardMap) set(id muster.LeaseID, at time.Duration) {
	if id == 0 {
		return
	}
	if (m.len+1)*8 > len(m.slots)*7 {
		m.resize(max(64, len(m.slots)*2))
	}
	s := &m.slots[m.find(id)]
	if s.id == 0 {
		m.len++
	}
	*s = heardSlot{id, at}
}

func (m *heardMap) remove(id muster.LeaseID) {
	if m.get(id) == nil {
		return
	}
	mask := len(m.slots) - 1
	hole := m.find(id)
	// Close the hole: whatever probed across it moves back, so that no search
	// ends early and there are no tombstones to clean up.
	for n := (hole + 1) & mask; m.slots[n].id != 0; n = (n + 1) & mask {
		home := int(hashID(m.slots[n].id)) & mask
		if (n-home)&mask >= (n-hole)&mask {
			m.slots[hole], hole = m.slots[n], n
		}
	}
	m.slots[hole] = heardSlot{}
	m.len--
	if len(m.slots) > 1024 && m.len*8 < len(m.slots) {
		m.resize(len(m.slots) / 4)
	}
}

func (m *heardMap) resize(size int) {
	old := m.slots
	m.slots = make([]heardSlot, size)
	for _, s := range old {
		if s.id != 0 {
			m.slots[m.find(s.id)] = s
		}
	}
}

func (m *heardMap) each(fn func(id muster.LeaseID, at *time.Duration)) {
	for n := range m.slots {
		if s := &m.slots[n]; s.id != 0 {
			fn(s.id, &s.at)
		}
	}
}
