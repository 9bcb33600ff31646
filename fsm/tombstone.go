package fsm

import "github.com/muster-registry/muster"

// maxTombstones bounds the instances that are remembered after they are gone.
const maxTombstones = 65_536

// tombstone is what is remembered of an instance that is gone. All but its
// place is immutable, so that a snapshot may keep it.
type tombstone struct {
	key         muster.InstanceKey
	incarnation uint64
	// deliberate: it was deregistered, and not by the end of its lease. Only then
	// is a registration of the same incarnation a late retry.
	deliberate bool
	place      int
}

func (t *tombstone) setPlace(n int) { t.place = n }

// tombstones are the instances that are gone, the oldest first.
type tombstones struct {
	byKey map[muster.InstanceKey]*tombstone
	order queue[*tombstone]
}

func (t *tombstones) find(k muster.InstanceKey) *tombstone { return t.byKey[k] }

// bury remembers an instance; the service's strings in k are shared.
func (t *tombstones) bury(k muster.InstanceKey, incarnation uint64, deliberate bool) {
	t.forget(k)
	if t.order.n == maxTombstones {
		delete(t.byKey, t.order.pop().key)
	}
	stone := &tombstone{key: k, incarnation: incarnation, deliberate: deliberate}
	t.byKey[k] = stone
	t.order.push(stone)
}

func (t *tombstones) forget(k muster.InstanceKey) {
	if stone := t.byKey[k]; stone != nil {
		delete(t.byKey, k)
		t.order.remove(stone.place)
	}
}

// confirm makes the removal a deliberate one of that incarnation, in its place.
func (t *tombstones) confirm(stone *tombstone, incarnation uint64) {
	if stone.deliberate && stone.incarnation >= incarnation {
		return
	}
	next := *stone
	next.deliberate, next.incarnation = true, max(incarnation, stone.incarnation)
	t.byKey[next.key] = &next
	t.order.items[next.place] = &next
}

// fences reports whether a registration of that incarnation comes too late.
func (t *tombstone) fences(incarnation uint64) bool {
	if t == nil || incarnation == 0 {
		return false
	}
	return incarnation < t.incarnation || t.deliberate && incarnation == t.incarnation
}
