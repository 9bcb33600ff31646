package fsm

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fault"
	"github.com/muster-registry/muster/wire"
)

// picture is the state at one index, taken in microseconds on raft's goroutine
// and written later. All it refers to is immutable or copied before it is
// written.
type picture struct {
	clusterID                                string
	epoch, applied, floor, listIndex, forgot uint64
	stamp                                    int64
	level                                    uint64

	services []*published // that have instances, in the order of their keys
	gone     []*published // that have none, the oldest first
	tombs    []*tombstone
	leases   []*leaseChunk
	journal  []*muster.Event
	members  members
	staging  *staging
	settings map[muster.ServiceKey]*muster.Settings
	governor governor
}

// take must not run beside a batch.
func (s *state) take() *picture {
	p := &picture{
		clusterID: s.clusterID, epoch: s.epoch, applied: s.applied, floor: s.floor, listIndex: s.listIndex,
		forgot: s.journal.dropped, stamp: s.stamp, level: s.level,
		tombs: s.tombs.order.all(), leases: s.leases.take(), journal: s.journal.latest(), members: s.members,
		staging: s.staging.take(), settings: s.settings, governor: s.governor,
	}
	if fault.Is(fault.LostTombstone) {
		p.tombs = nil
	}
	for _, pub := range s.dir.published() {
		if len(pub.view.Instances) > 0 {
			p.services = append(p.services, pub)
		}
	}
	for _, svc := range s.gone.all() {
		p.gone = append(p.gone, svc.pub.Load())
	}
	return p
}

// write writes p in canonical order: equal states give equal bytes.
func (p *picture) write(w io.Writer) (int64, error) {
	fw := newFrameWriter(w)
	fw.record(blockHeader, p.appendHeader)
	p.writeLeases(fw)
	for _, pub := range p.services {
		writeService(fw, pub)
	}
	for _, pub := range p.gone {
		fw.record(blockGoneServices, func(b []byte) []byte { return appendService(b, pub.view) })
	}
	for _, t := range p.tombs {
		fw.record(blockTombstones, func(b []byte) []byte {
			return wire.AppendBool(wire.AppendUint(appendKey(b, t.key), 4, t.incarnation), 5, t.deliberate)
		})
	}
	for _, e := range p.journal {
		fw.record(blockJournal, func(b []byte) []byte { return appendEvent(b, e) })
	}
	for _, m := range p.members.boots {
		fw.record(blockMembers, func(b []byte) []byte { return wire.AppendUint(wire.AppendString(b, 1, m.id), 2, m.boot) })
	}
	for _, id := range p.members.removed {
		fw.record(blockRemoved, func(b []byte) []byte { return wire.AppendString(b, 1, id) })
	}
	p.staging.write(fw)
	p.writeSettings(fw)
	for _, t := range counted {
		fw.record(blockTrailer, func(b []byte) []byte { return wire.AppendUint(wire.AppendUint(b, 1, uint64(t)), 2, fw.count[t]) })
	}
	fw.flush()
	return fw.size, fw.err
}

// counted are the types of block whose records the trailer counts.
var counted = []blockType{
	blockHeader, blockLeases, blockServices, blockGoneServices, blockTombstones, blockJournal, blockMembers, blockRemoved, blockStaging, blockSettings,
}

func (p *picture) appendHeader(b []byte) []byte {
	b = wire.AppendString(b, 1, p.clusterID)
	b = wire.AppendUint(b, 2, muster.MakeIndex(p.epoch, p.applied))
	b = wire.AppendUint(b, 3, p.epoch)
	b = wire.AppendUint(b, 4, uint64(p.stamp))
	b = wire.AppendUint(b, 5, p.floor)
	b = wire.AppendUint(b, 6, p.listIndex)
	b = wire.AppendUint(b, 7, p.forgot)
	if p.governor != (governor{}) {
		b = appendMessage(b, 8, p.governor.append)
	}
	if p.level == baseLevel {
		return b
	}
	return wire.AppendUint(b, 9, p.level)
}

func (p *picture) writeLeases(fw *frameWriter) {
	var all []*lease
	for _, c := range p.leases {
		for n := range c.leases {
			if c.leases[n].id != 0 {
				all = append(all, &c.leases[n])
			}
		}
	}
	slices.SortFunc(all, func(a, b *lease) int { return cmp.Compare(a.id, b.id) })
	for _, l := range all {
		fw.record(blockLeases, func(b []byte) []byte {
			b = wire.AppendUint(b, 1, uint64(l.id))
			b = wire.AppendUint(b, 2, l.gen)
			b = wire.AppendUint(b, 3, uint64(l.ttl))
			b = wire.AppendBool(b, 4, l.suspect)
			if l.shared != nil {
				b = wire.AppendString(wire.AppendBool(b, 5, true), 6, l.shared.name)
			}
			return b
		})
	}
}

// writeService writes a service and then its instances, records of one type.
func writeService(fw *frameWriter, pub *published) {
	fw.record(blockServices, func(b []byte) []byte {
		return appendMessage(b, 1, func(b []byte) []byte { return appendService(b, pub.view) })
	})
	for _, i := range pub.view.Instances {
		fw.record(blockServices, func(b []byte) []byte {
			return appendMessage(b, 2, func(b []byte) []byte {
				if below, ok := pub.below[i.ID]; ok {
					return appendRecord(b, i, &below)
				}
				return appendRecord(b, i, nil)
			})
		})
	}
}

func appendService(b []byte, v *muster.View) []byte {
	b = wire.AppendString(wire.AppendString(b, 1, v.Namespace), 2, v.Service)
	b = wire.AppendUint(b, 3, v.Index)
	b = wire.AppendBool(b, 4, v.EmptyReason == muster.EmptyExpired)
	return wire.AppendUint(b, 5, uint64(len(v.Instances)))
}

func appendEvent(b []byte, e *muster.Event) []byte {
	b = wire.AppendString(wire.AppendString(wire.AppendString(b, 1, e.Namespace), 2, e.Service), 3, e.ID)
	b = wire.AppendUint(b, 4, e.Index)
	b = appendTime(b, 5, e.Time)
	b = wire.AppendString(b, 6, string(e.Type))
	b = wire.AppendString(b, 7, string(e.Cause))
	b = wire.AppendString(b, 8, e.Actor)
	b = wire.AppendString(b, 9, e.Reason)
	b = wire.AppendString(b, 10, string(e.Status))
	return wire.AppendString(b, 11, string(e.PrevStatus))
}

// fsmSnapshot hands a picture to raft.
type fsmSnapshot struct {
	f *FSM
	p *picture
}

// Persist writes the snapshot. Raft calls it beside later entries.
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	size, err := s.p.write(sink)
	if err == nil {
		err = sink.Close()
	}
	if err != nil {
		_ = sink.Cancel() // the error that counts is the first
		return fmt.Errorf("persisting the snapshot at index %d: %w", s.p.applied, err)
	}
	s.f.metrics.snapshotSize.Set(float64(size))
	return nil
}

// Release lets the picture go.
func (s *fsmSnapshot) Release() { s.p = &picture{} }

// Snapshot takes a picture of the state, for raft.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return nil, f.broken
	}
	return &fsmSnapshot{f, f.st.take()}, nil
}
