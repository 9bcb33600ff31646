package fsm

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/muster-registry/muster"
)

var (
	errOrder        = errors.New("records are not in order")
	errCount        = errors.New("records are missing or too many")
	errInconsistent = errors.New("records contradict each other")
	errNameless     = errors.New("record has no name")
)

// loader builds a state from a snapshot. The input is checked throughout: a
// backup that is restored may come from anywhere.
type loader struct {
	*frameReader
	s     *state
	index uint64 // of the snapshot

	// The service whose instances are being read.
	svc       *service
	want      int
	instances []*muster.Instance
	below     map[string]base

	total map[blockType]uint64 // as the trailer says
}

// readSnapshot reads a whole snapshot into a state of its own.
func readSnapshot(r io.Reader) (*state, error) {
	fr, err := newFrameReader(r)
	if err != nil {
		return nil, err
	}
	l := &loader{frameReader: fr, s: newState(), total: make(map[blockType]uint64)}
	for {
		t, d, err := l.next()
		if err != nil {
			return nil, err
		}
		if l.index == 0 && t != blockHeader {
			return nil, fmt.Errorf("block of type %d before the header: %w", t, errBlockOrder)
		}
		read, err := l.reader(t)
		if err != nil {
			return nil, err
		}
		for rec, ok := l.record(t, &d); ok; rec, ok = l.record(t, &d) {
			if err := errors.Join(read(&rec), rec.Err()); err != nil {
				return nil, fmt.Errorf("block of type %d, record %d: %w", t, l.count[t], err)
			}
		}
		if d.Err() != nil {
			return nil, fmt.Errorf("block of type %d: %w", t, d.Err())
		}
		if t == blockTrailer {
			return l.s, l.finish()
		}
	}
}

// reader returns what reads the records of a type of block.
func (l *loader) reader(t blockType) (func(*decoder) error, error) {
	switch t {
	case blockHeader:
		return l.header, nil
	case blockLeases:
		return l.lease, nil
	case blockServices:
		return l.service, nil
	case blockGoneServices:
		return l.goneService, nil
	case blockTombstones:
		return l.tombstone, nil
	case blockJournal:
		return l.event, nil
	case blockMembers:
		return l.member, nil
	case blockRemoved:
		return l.removed, nil
	case blockStaging:
		return l.staging, nil
	case blockSettings:
		return l.settings, nil
	case blockTrailer:
		return l.trailer, nil
	}
	if t&blockOptional != 0 {
		return func(*decoder) error { return nil }, nil
	}
	return nil, unknownKind("block", byte(t))
}

func (l *loader) header(d *decoder) error {
	if l.index != 0 {
		return errCount
	}
	s := l.s
	for d.Next() {
		switch d.Num {
		case 1:
			s.clusterID = d.str()
		case 2:
			l.index = d.index()
		case 3:
			s.epoch = d.index()
		case 4:
			s.stamp = int64(d.uint(maxMillis))
		case 5:
			s.floor = d.index()
		case 6:
			s.listIndex = d.index()
		case 7:
			s.journal.dropped = d.index()
		case 8:
			s.governor = readGovernor(d)
		case 9:
			s.level = d.uint(1<<64 - 1)
		}
	}
	if d.Err() == nil && s.level > KnownLevel {
		return levelError(s.level)
	}
	var epoch uint64
	epoch, s.applied = muster.SplitIndex(l.index)
	if d.Err() == nil && (l.index == 0 || epoch != s.epoch || max(s.floor, s.listIndex, s.journal.dropped) > l.index) {
		return errInconsistent
	}
	return nil
}

func (l *loader) lease(d *decoder) error {
	var v lease
	shared, name := false, ""
	for d.Next() {
		switch d.Num {
		case 1:
			v.id = d.id()
		case 2:
			v.gen = d.index()
		case 3:
			v.ttl = d.span()
		case 4:
			v.suspect = d.bool()
		case 5:
			shared = d.bool()
		case 6:
			name = d.str()
		}
	}
	switch {
	case d.Err() != nil:
		return nil // the caller sees it
	case v.id == 0 || v.ttl <= 0 || l.s.leases.find(v.id) != nil:
		return errInconsistent
	case v.gen > l.index || v.id.Index() > l.index:
		return errInconsistent
	}
	if shared {
		v.shared = newSharedLease(name)
	}
	l.s.leases.add(v)
	return nil
}

// service reads a record of a service or of one of its instances.
func (l *loader) service(d *decoder) error {
	for d.Next() {
		switch d.Num {
		case 1:
			if err := l.close(); err != nil {
				return err
			}
			svc, _, n, err := l.describe(d.message())
			if err != nil {
				return err
			}
			if k := len(l.s.dir.order); n == 0 || k > 0 && compareServices(l.s.dir.order[k-1], svc) >= 0 {
				return errOrder
			}
			l.enter(svc)
			l.svc, l.want = svc, n
			l.instances = make([]*muster.Instance, 0, min(n, muster.MaxInstances))
		case 2:
			i, below, err := readRecord(d.message(), l.like())
			if err != nil {
				return err
			}
			if err := l.instance(i, below); err != nil {
				return err
			}
		}
	}
	return nil
}

// describe reads what appendService writes.
func (l *loader) describe(d decoder) (svc *service, expired bool, n int, err error) {
	var k muster.ServiceKey
	var index uint64
	for d.Next() {
		switch d.Num {
		case 1:
			k.Namespace = d.str()
		case 2:
			k.Service = d.str()
		case 3:
			index = d.index()
		case 4:
			expired = d.bool()
		case 5:
			n = d.int()
		}
	}
	switch {
	case d.Err() != nil:
		return nil, false, 0, d.Err()
	case k.Namespace == "" || k.Service == "":
		return nil, false, 0, errNameless
	case index == 0 || index > l.index || l.s.dir.byKey[k] != nil:
		return nil, false, 0, errInconsistent
	}
	svc = newService(k)
	svc.index = index
	return svc, expired, n, nil
}

func (l *loader) enter(svc *service) {
	l.s.dir.byKey[svc.key] = svc
	l.s.dir.order = append(l.s.dir.order, svc)
}

// like is the instance before the one that is being read, in its service.
func (l *loader) like() *muster.Instance {
	if n := len(l.instances); n > 0 {
		return l.instances[n-1]
	}
	return nil
}

func (l *loader) instance(i *muster.Instance, below *base) error {
	if l.svc == nil || len(l.instances) == l.want {
		return errCount
	}
	before := l.like()
	switch {
	case i.ID == "":
		return errNameless
	case before != nil && i.ID <= before.ID:
		return errOrder
	case (i.Override != nil) != (below != nil) || i.ModifyIndex == 0 || i.CreateIndex > i.ModifyIndex || i.ModifyIndex > l.svc.index:
		return errInconsistent
	}
	i.Namespace, i.Service = l.svc.key.Namespace, l.svc.key.Service
	share(i, before)
	if below != nil {
		if l.below == nil {
			l.below = make(map[string]base)
		}
		l.below[i.ID] = *below
	}
	l.instances = append(l.instances, i)
	l.s.counts[statusNumber(i.Status)]++
	return l.hang(i)
}

// hang ties an instance to its lease.
func (l *loader) hang(i *muster.Instance) error {
	if i.LeaseID == 0 {
		if i.Suspect {
			return errInconsistent
		}
		return nil
	}
	v := l.s.leases.find(i.LeaseID)
	switch {
	case v == nil || v.suspect != i.Suspect || (v.shared != nil) != (i.TTL == 0):
		return errInconsistent
	case v.shared != nil:
		v.shared.hang(l.svc, i.ID)
	case v.svc != nil || v.ttl != int64(i.TTL):
		return errInconsistent
	default:
		v.svc, v.inst, v.down = l.svc, i.ID, i.OnExpiry == muster.ExpiryDown
	}
	return nil
}

// close ends the service that is being read.
func (l *loader) close() error {
	if l.svc == nil {
		return nil
	}
	if len(l.instances) != l.want {
		return errCount
	}
	l.svc.load(l.instances, l.below)
	l.s.live++
	l.svc, l.instances, l.below = nil, nil, nil
	return nil
}

func (l *loader) goneService(d *decoder) error {
	if err := l.close(); err != nil {
		return err
	}
	svc, expired, n, err := l.describe(*d)
	if err != nil {
		return err
	}
	if n != 0 || l.s.gone.n == maxServiceTombstones {
		return errCount
	}
	svc.reason = muster.EmptyDeregistered
	if expired {
		svc.reason = muster.EmptyExpired
	}
	svc.load([]*muster.Instance{}, nil)
	l.enter(svc)
	l.s.gone.push(svc)
	return nil
}

// finish checks that all is there and ties up the ends.
func (l *loader) finish() error {
	if err := errors.Join(l.close(), l.end()); err != nil {
		return err
	}
	for _, t := range counted {
		if l.total[t] != l.count[t] {
			return fmt.Errorf("trailer counts %d records of type %d, there are %d: %w", l.total[t], t, l.count[t], errCount)
		}
	}
	for id := range l.s.leases.slots {
		if v := l.s.leases.find(id); v.shared == nil && v.svc == nil {
			return fmt.Errorf("lease %s holds nothing: %w", id, errInconsistent)
		}
	}
	slices.SortFunc(l.s.dir.order, compareServices)
	return nil
}
