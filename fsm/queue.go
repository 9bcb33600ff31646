package fsm

// placed is something that remembers where in a queue it stands.
type placed interface {
	comparable
	setPlace(n int)
}

// queue holds things in the order of their arrival, and lets one go from
// anywhere in constant time.
type queue[P placed] struct {
	items []P // with holes, of P's zero value
	first int // no item below this position
	n     int
}

func (q *queue[P]) push(p P) {
	var hole P
	if len(q.items) > 64 && len(q.items) > 2*q.n {
		kept := make([]P, 0, q.n+q.n/2+1)
		for _, p := range q.items[q.first:] {
			if p != hole {
				p.setPlace(len(kept))
				kept = append(kept, p)
			}
		}
		q.items, q.first = kept, 0
	}
	p.setPlace(len(q.items))
	q.items = append(q.items, p)
	q.n++
}

// remove takes out what stands at position n.
func (q *queue[P]) remove(n int) {
	var hole P
	q.items[n] = hole
	q.n--
}

// pop takes out the oldest of a queue that is not empty.
func (q *queue[P]) pop() P {
	var hole P
	for q.items[q.first] == hole {
		q.first++
	}
	p := q.items[q.first]
	q.remove(q.first)
	return p
}

// all is a copy, in order.
func (q *queue[P]) all() []P {
	var hole P
	out := make([]P, 0, q.n)
	for _, p := range q.items[q.first:] {
		if p != hole {
			out = append(out, p)
		}
	}
	return out
}
