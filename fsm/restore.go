package fsm

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fault"
	"github.com/muster-registry/muster/wire"
)

// restoreIdle is how long, in the log's own time, an unfinished restore may go
// without a chunk before it no longer holds up the writes of clients.
const restoreIdle = 30 * time.Second

// staging is a backup on its way in. Chunks that were added are never written
// again.
type staging struct {
	id      string
	total   uint64
	touched int64 // stamp of its last operation
	held    int
	chunks  [][]byte
}

func (g *staging) size() int {
	if g == nil {
		return 0
	}
	return g.held
}

func (g *staging) add(data []byte) {
	g.chunks = append(g.chunks, bytes.Clone(data))
	g.held += len(data)
}

// take is a copy for a snapshot.
func (g *staging) take() *staging {
	if g == nil {
		return nil
	}
	c := *g
	c.chunks = slices.Clip(g.chunks)
	return &c
}

func (g *staging) write(fw *frameWriter) {
	if g == nil {
		return
	}
	fw.record(blockStaging, func(b []byte) []byte {
		return wire.AppendUint(wire.AppendUint(wire.AppendBytes(b, 1, []byte(g.id)), 2, g.total), 3, uint64(g.touched))
	})
	for _, c := range g.chunks {
		fw.record(blockStaging, func(b []byte) []byte { return wire.AppendBytes(b, 4, c) })
	}
}

// reader reads the staged bytes.
func (g *staging) reader() io.Reader {
	all := make([]io.Reader, len(g.chunks))
	for n, c := range g.chunks {
		all[n] = bytes.NewReader(c)
	}
	return io.MultiReader(all...)
}

// busy refuses a client's write while a restore is under way. One that nobody
// feeds any more is discarded.
func (s *state) busy() *muster.Error {
	if s.staging == nil {
		return nil
	}
	if s.stamp-s.staging.touched > restoreIdle.Milliseconds() {
		s.staging = nil
		return nil
	}
	return muster.Errorf(muster.CodeCatchingUp, "a backup is being restored").
		WithHint("repeat the write when the restore is done").WithRetryAfter(time.Second)
}

// open returns the unfinished restore of that id.
func (s *state) open(id string) (*staging, *muster.Error) {
	if s.staging == nil || s.staging.id != id {
		return nil, muster.Errorf(muster.CodeNoLeader, "there is no unfinished restore of that id: it was given up, or the leader changed").
			WithHint("start the restore again").WithRetryAfter(time.Second)
	}
	s.staging.touched = s.stamp
	return s.staging, nil
}

func (o *RestoreBegin) apply(s *state, at step) result {
	if s.staging == nil || s.staging.id != o.ID {
		if err := s.busy(); err != nil {
			return reject(at, err)
		}
	}
	switch {
	case o.ID == "":
		return reject(at, muster.Errorf(muster.CodeConflict, "the restore has no id"))
	case o.Total == 0 || o.Total > MaxRestoreBytes:
		return reject(at, muster.Errorf(muster.CodeBodyTooLarge, "a backup of %d bytes cannot be restored: from 1 to %d", o.Total, MaxRestoreBytes))
	}
	s.staging = &staging{id: o.ID, total: o.Total, touched: s.stamp}
	return result{index: at.index, changed: true}
}

func (o *RestoreChunk) apply(s *state, at step) result {
	g, err := s.open(o.ID)
	if err != nil {
		return reject(at, err)
	}
	switch end := o.Offset + uint64(len(o.Data)); {
	case o.Offset == uint64(g.held) && end <= g.total && len(o.Data) > 0:
		g.add(o.Data)
		return result{index: at.index, changed: true}
	case o.Offset < end && end <= uint64(g.held):
		return result{index: at.index} // a chunk whose answer was lost comes again
	}
	return reject(at, muster.Errorf(muster.CodeConflict, "%d bytes at offset %d do not follow the %d of %d bytes there are",
		len(o.Data), o.Offset, g.held, g.total).WithHint("start the restore again"))
}

func (o *RestoreAbort) apply(s *state, at step) result {
	if _, err := s.open(o.ID); err != nil {
		return reject(at, err)
	}
	s.staging = nil
	return result{index: at.index, changed: true}
}

func (o *RestoreCommit) apply(s *state, at step) result {
	g, rejection := s.open(o.ID)
	if rejection != nil {
		return reject(at, rejection)
	}
	// Whatever comes of it, the restore is over.
	s.staging = nil
	sum := sha256.New()
	if _, err := io.Copy(sum, g.reader()); err != nil || uint64(g.held) != g.total || !bytes.Equal(sum.Sum(nil), o.SHA256[:]) {
		return reject(at, muster.Errorf(muster.CodeConflict, "the %d bytes that arrived are not the %d bytes that were announced", g.held, g.total).
			WithHint("start the restore again"))
	}
	from, err := readSnapshot(g.reader())
	if err != nil {
		return reject(at, muster.Errorf(muster.CodeMalformedRequest, "the backup cannot be read: %v", err))
	}
	if err := s.checkLevel(from); err != nil {
		return reject(at, err)
	}
	epoch := max(s.epoch, from.epoch) + 1
	if fault.Is(fault.RestoreIndexBack) {
		epoch = from.epoch + 1
	}
	index := muster.MakeIndex(epoch, at.raft)
	if index > muster.MaxIndex {
		return reject(at, muster.Errorf(muster.CodeConflict, "epoch %d is more than an index can hold", epoch))
	}
	if err := from.rebase(s, index); err != nil {
		return reject(at, muster.Errorf(muster.CodeConflict, "the backup cannot be restored here: %v", err))
	}
	s.adopt(from, epoch)
	at.index = index
	s.journal.add(&muster.Event{
		Index: index, Time: at.now, Type: muster.EventUpdated, Cause: muster.CauseRestored, Actor: o.Caller.Actor, Reason: o.Caller.Reason,
	})
	s.out.tally.transition(muster.CauseRestored)
	return result{index: index, changed: true}
}

// rebase gives all content one index, later than any that either side has shown,
// so that none goes back and no entity tag of before matches. Leases keep their
// ids, so that the beats of their owners go on to count; but an id that names a
// lease of something else in the state that is replaced is given anew, lest the
// beats of the one keep the other alive.
func (s *state) rebase(replaced *state, index uint64) error {
	renamed, err := s.renameLeases(replaced, index)
	if err != nil {
		return err
	}
	for _, svc := range s.dir.order {
		svc.index = index
		instances := svc.pub.Load().view.Instances
		for _, i := range instances {
			i.CreateIndex, i.ModifyIndex, i.Place = index, index, 0
			if i.ChecksFrom != 0 {
				i.ChecksFrom = index
			}
			if id, ok := renamed[i.LeaseID]; ok {
				i.LeaseID = id
			}
		}
		svc.n, svc.routable, svc.suspect = 0, 0, 0
		svc.load(instances, svc.below)
	}
	for id := range s.leases.slots {
		s.leases.edit(id).gen = index
	}
	s.floor, s.listIndex = index, index
	return nil
}

// renameLeases gives new ids to the leases whose id names something else in the
// state that is replaced. The new ids take their indexes from before the
// restore's entry in its own epoch, where no entry can have granted any.
func (s *state) renameLeases(replaced *state, index uint64) (map[muster.LeaseID]muster.LeaseID, error) {
	var clash []lease
	for id := range s.leases.slots {
		mine, theirs := s.leases.find(id), replaced.leases.find(id)
		if theirs != nil && !sameLease(mine, theirs, s.clusterID == replaced.clusterID) {
			clash = append(clash, *mine)
		}
	}
	slices.SortFunc(clash, func(a, b lease) int { return cmp.Compare(a.id, b.id) })
	renamed := make(map[muster.LeaseID]muster.LeaseID, len(clash))
	epoch, raftIndex := muster.SplitIndex(index)
	for n, l := range clash {
		at := uint64(n>>muster.PlaceBits) + 1
		if at >= raftIndex {
			return nil, fmt.Errorf("%d leases need new ids", len(clash))
		}
		s.leases.remove(l.id)
		before := l.id
		l.id = muster.MakeLeaseID(muster.MakeIndex(epoch, at), n&(1<<muster.PlaceBits-1))
		s.leases.add(l)
		renamed[before] = l.id
	}
	return renamed, nil
}

// sameLease reports whether two leases of one id are the same lease.
func sameLease(a, b *lease, sameCluster bool) bool {
	if a.shared != nil || b.shared != nil {
		return sameCluster && a.shared != nil && b.shared != nil
	}
	return a.svc.key == b.svc.key && a.inst == b.inst
}

// adopt puts the content of a backup in the place of what s holds. The cluster's
// own id, members, journal and governor switch stay.
func (s *state) adopt(from *state, epoch uint64) {
	s.epoch, s.floor, s.listIndex = epoch, from.floor, from.listIndex
	s.dir, s.live, s.gone, s.tombs, s.leases, s.counts = from.dir, from.live, from.gone, from.tombs, from.leases, from.counts
	s.settings = from.settings
	s.out.restart()
}

// Restore replaces the state by a snapshot, for raft. It reads the whole of it
// before it touches anything.
func (f *FSM) Restore(r io.ReadCloser) error {
	defer r.Close()
	if f.broken != nil {
		return f.broken
	}
	s, err := readSnapshot(r)
	if err != nil {
		return fmt.Errorf("reading a snapshot: %w", err)
	}
	f.mu.Lock()
	s.out.listen, s.out.tally = f.st.out.listen, f.st.out.tally
	s.out.restart()
	f.st = s
	f.publish()
	return nil
}
