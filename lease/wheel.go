package lease

import "time"

const (
	slotTime = 100 * time.Millisecond
	slots    = 1024
)

// wheel is a lazy timing wheel: a record lies in the slot of the deadline it had
// when it was put there, and only when that slot comes up is anybody asked what
// the deadline is now. A renewal does not touch it, so each lease is touched
// about once per TTL. Deadlines beyond the wheel lie in its last slot.
type wheel struct {
	heads [slots]*record
	cur   int64 // the slot that was fired last
}

// slotOf is the first slot that fires at or after a deadline.
func slotOf(deadline time.Duration) int64 { return int64((deadline + slotTime - 1) / slotTime) }

// add puts a record that is in no slot where it fires at its deadline, but not
// before the next advance.
func (w *wheel) add(r *record, deadline time.Duration) {
	slot := min(max(slotOf(deadline), w.cur+1), w.cur+slots-1)
	r.slot = int32(slot%slots) + 1
	head := &w.heads[slot%slots]
	r.prev, r.next = nil, *head
	if *head != nil {
		(*head).prev = r
	}
	*head = r
}

// remove takes a record out of its slot, if it is in one.
func (w *wheel) remove(r *record) {
	if r.slot == 0 {
		return
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		w.heads[r.slot-1] = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.slot, r.prev, r.next = 0, nil, nil
}

// advance fires the slots up to now: each record in them is taken out and given
// to fn, which may put it back.
func (w *wheel) advance(now time.Duration, fn func(r *record)) {
	last := int64(now / slotTime)
	if last-w.cur > slots {
		w.cur = last - slots
	}
	for w.cur < last {
		w.cur++
		r := w.heads[w.cur%slots]
		w.heads[w.cur%slots] = nil
		for r != nil {
			next := r.next
			r.slot, r.prev, r.next = 0, nil, nil
			fn(r)
			r = next
		}
	}
}
