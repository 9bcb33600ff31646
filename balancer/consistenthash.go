package balancer

// consistentHash gives equal keys to the same instance, and keeps nearly all keys
// where they are when instances come and go. It looks the key up in the table of
// Google's Maglev (Eisenbud et al., NSDI 2016, §3.4), in which each instance holds
// a share of the slots in proportion to its weight.
//
// The table depends on the view alone, so that all nodes and clients agree. An
// instance that is ejected keeps its slots: its keys, and only those, move to the
// instances of the slots that follow until it is back.
type consistentHash struct{ *row }

func (consistentHash) next(p *pool, t *tier, d draw) int32 {
	w := p.walk(t, d)
	for range w.slots {
		if place := w.step(); place >= 0 {
			return place
		}
	}
	return p.place(t.pos(int32(d.key % uint64(t.n))))
}

// walk goes through the slots of a table from that of a key on.
type walk struct {
	p     *pool
	t     *tier
	at    moment
	slots []int32
	lo    int32 // place of the table's first
	slot  int
}

func (p *pool) walk(t *tier, d draw) walk {
	slots := t.span.table(p.roster)
	return walk{p, t, d.at, slots, t.span.lo, int((d.key + uint64(d.try)) % uint64(len(slots)))}
}

// step returns the place of the next slot, a negative number where that one is not
// to be picked.
func (w *walk) step() int32 {
	place := w.lo + w.slots[w.slot]
	if w.slot++; w.slot == len(w.slots) {
		w.slot = 0
	}
	if w.t.rest && w.t.skip.has(place) || !w.p.admits(place, w.at) {
		return -1
	}
	return place
}
