package fsm

import (
	"cmp"
	"slices"

	"github.com/muster-registry/muster"
)

// maxSharedLeases bounds the leases that stand by themselves.
const maxSharedLeases = 100_000

// lease is one lease. An instance's own has svc and inst; one that instances
// name has shared.
type lease struct {
	id      muster.LeaseID
	gen     uint64
	ttl     int64 // nanoseconds
	svc     *service
	inst    string
	shared  *sharedLease
	suspect bool
	down    bool // an own one whose instance is kept as down when it ends
}

// sharedLease is what a lease has that many instances may name.
type sharedLease struct {
	name string
	// hanging and perService are raft's goroutine's (under FSM.mu); they follow
	// from the instances, and are not part of a snapshot.
	hanging    map[hanging]struct{}
	perService map[*service]int
}

type hanging struct {
	svc  *service
	inst string
}

func newSharedLease(name string) *sharedLease {
	return &sharedLease{name: name, hanging: make(map[hanging]struct{}), perService: make(map[*service]int)}
}

func (s *sharedLease) hang(svc *service, inst string) {
	s.hanging[hanging{svc, inst}] = struct{}{}
	s.perService[svc]++
}

func (s *sharedLease) unhang(svc *service, inst string) {
	delete(s.hanging, hanging{svc, inst})
	if s.perService[svc]--; s.perService[svc] == 0 {
		delete(s.perService, svc)
	}
}

// leaseTable holds the leases in chunks that are copied on write once a snapshot
// has taken them: taking one costs a slice of pointers, and a write afterwards
// at most one copy of a chunk.
type leaseTable struct {
	slots  map[muster.LeaseID]uint32
	chunks []*leaseChunk
	free   []uint32
	shared int    // leases that instances name
	seq    uint64 // chunks with a lower one belong to a snapshot too
}

// chunkLeases fills an allocation of 16 KiB.
const chunkLeases = 255

type leaseChunk struct {
	seq    uint64
	leases [chunkLeases]lease
}

func newLeaseTable() leaseTable { return leaseTable{slots: make(map[muster.LeaseID]uint32)} }

func (t *leaseTable) len() int { return len(t.slots) }

// find returns the lease to be looked at; nil where there is none.
func (t *leaseTable) find(id muster.LeaseID) *lease {
	slot, ok := t.slots[id]
	if !ok {
		return nil
	}
	return &t.chunks[slot/chunkLeases].leases[slot%chunkLeases]
}

// edit returns the lease to be written; it must exist.
func (t *leaseTable) edit(id muster.LeaseID) *lease { return t.at(t.slots[id]) }

func (t *leaseTable) at(slot uint32) *lease {
	c := t.chunks[slot/chunkLeases]
	if c.seq != t.seq {
		copied := *c
		copied.seq = t.seq
		c = &copied
		t.chunks[slot/chunkLeases] = c
	}
	return &c.leases[slot%chunkLeases]
}

func (t *leaseTable) add(l lease) {
	if len(t.free) == 0 {
		first := uint32(len(t.chunks) * chunkLeases)
		t.chunks = append(t.chunks, &leaseChunk{seq: t.seq})
		for n := range uint32(chunkLeases) {
			t.free = append(t.free, first+chunkLeases-1-n)
		}
	}
	slot := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	*t.at(slot) = l
	t.slots[l.id] = slot
	if l.shared != nil {
		t.shared++
	}
}

func (t *leaseTable) remove(id muster.LeaseID) {
	slot, ok := t.slots[id]
	if !ok {
		return
	}
	l := t.at(slot)
	if l.shared != nil {
		t.shared--
	}
	*l = lease{}
	delete(t.slots, id)
	t.free = append(t.free, slot)
}

// take returns the chunks as they are, for a snapshot: from now on they are
// copied before they are written.
func (t *leaseTable) take() []*leaseChunk {
	t.seq++
	return slices.Clone(t.chunks)
}

// holds lists what hangs on l, in no order.
func (l *lease) holds() []hanging {
	if l.shared == nil {
		return []hanging{{l.svc, l.inst}}
	}
	all := make([]hanging, 0, len(l.shared.hanging))
	for h := range l.shared.hanging {
		all = append(all, h)
	}
	return all
}

// hangs lists what hangs on l, in the order of services and ids.
func (l *lease) hangs() []hanging { return sorted(l.holds()) }

func sorted(all []hanging) []hanging {
	slices.SortFunc(all, func(a, b hanging) int {
		return cmp.Or(a.svc.key.Compare(b.svc.key), cmp.Compare(a.inst, b.inst))
	})
	return all
}

// public is l, and what hangs on it, as the registry shows it.
func (l *lease) public(hangs []hanging) *muster.Lease {
	p := &muster.Lease{
		ID: l.id, TTL: muster.TTL(l.ttl), Generation: l.gen, Shared: l.shared != nil,
		Instances: make([]muster.InstanceKey, 0, len(hangs)),
	}
	if l.shared != nil {
		p.Name = l.shared.name
	}
	for _, h := range hangs {
		p.Instances = append(p.Instances, muster.InstanceKey{Namespace: h.svc.key.Namespace, Service: h.svc.key.Service, ID: h.inst})
	}
	return p
}

// record is l as the keeper wants it.
func (l *lease) record() LeaseRecord {
	r := LeaseRecord{ID: l.id, TTL: muster.TTL(l.ttl).Duration(), Generation: l.gen, Suspect: l.suspect, Shared: l.shared != nil, Instances: 1}
	if l.shared == nil {
		r.Services, r.OnExpiry = l.svc.keys, muster.ExpiryRemove
		if l.down {
			r.OnExpiry = muster.ExpiryDown
		}
		return r
	}
	r.Instances = len(l.shared.hanging)
	for svc := range l.shared.perService {
		r.Services = append(r.Services, svc.key)
	}
	slices.SortFunc(r.Services, muster.ServiceKey.Compare)
	return r
}
