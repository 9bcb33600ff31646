package fsm

import (
	"github.com/muster-registry/muster"
)

func (l *loader) tombstone(d *decoder) error {
	var k muster.InstanceKey
	var incarnation uint64
	deliberate := false
	for d.Next() {
		switch {
		case readKey(&k, d):
		case d.Num == 4:
			incarnation = d.uint(muster.MaxIncarnation)
		case d.Num == 5:
			deliberate = d.bool()
		}
	}
	switch {
	case d.Err() != nil:
		return nil // the caller sees it
	case k.Namespace == "" || k.Service == "" || k.ID == "":
		return errNameless
	case l.s.tombs.find(k) != nil || l.s.tombs.order.n == maxTombstones:
		return errCount
	}
	if svc := l.s.dir.byKey[muster.ServiceKey{Namespace: k.Namespace, Service: k.Service}]; svc != nil {
		k.Namespace, k.Service = svc.key.Namespace, svc.key.Service
	}
	l.s.tombs.bury(k, incarnation, deliberate)
	return nil
}

func (l *loader) event(d *decoder) error {
	e := &muster.Event{}
	for d.Next() {
		switch d.Num {
		case 1:
			e.Namespace = d.str()
		case 2:
			e.Service = d.str()
		case 3:
			e.ID = d.str()
		case 4:
			e.Index = d.index()
		case 5:
			e.Time = d.time()
		case 6:
			e.Type = readWord(d, eventTypes)
		case 7:
			e.Cause = readCause(d)
		case 8:
			e.Actor = d.str()
		case 9:
			e.Reason = d.str()
		case 10:
			e.Status = readStatus(d)
		case 11:
			e.PrevStatus = readStatus(d)
		}
	}
	if d.Err() != nil {
		return nil // the caller sees it
	}
	events := l.s.journal.events
	switch n := len(events); {
	case n == maxJournal:
		return errCount
	case n > 0 && events[n-1].Index > e.Index || e.Index < l.s.journal.dropped || e.Index > l.index:
		return errOrder
	}
	if svc := l.s.dir.byKey[muster.ServiceKey{Namespace: e.Namespace, Service: e.Service}]; svc != nil {
		e.Namespace, e.Service = svc.key.Namespace, svc.key.Service
	}
	l.s.journal.add(e)
	return nil
}

func (l *loader) member(d *decoder) error {
	var m member
	for d.Next() {
		switch d.Num {
		case 1:
			m.id = d.str()
		case 2:
			m.boot = d.uint(1<<64 - 1)
		}
	}
	if len(l.s.members.boots) == maxMembers {
		return errCount
	}
	l.s.members.boots = append(l.s.members.boots, m)
	return nil
}

func (l *loader) removed(d *decoder) error {
	var id string
	for d.Next() {
		if d.Num == 1 {
			id = d.str()
		}
	}
	if len(l.s.members.removed) == maxRemoved {
		return errCount
	}
	l.s.members.removed = append(l.s.members.removed, id)
	return nil
}

// staging reads an unfinished restore: what it is, then its bytes.
func (l *loader) staging(d *decoder) error {
	st := l.s.staging
	for d.Next() {
		switch d.Num {
		case 1:
			st = &staging{id: d.str()}
		case 2:
			st.total = d.uint(MaxRestoreBytes)
		case 3:
			st.touched = int64(d.uint(maxMillis))
		case 4:
			if st == nil || uint64(st.size()+len(d.Bytes)) > st.total {
				return errInconsistent
			}
			st.add(d.bytes(MaxRestoreChunk))
		}
		if st == nil {
			return errInconsistent
		}
	}
	l.s.staging = st
	return nil
}

func (l *loader) settings(d *decoder) error {
	if err := l.close(); err != nil {
		return err
	}
	var k muster.ServiceKey
	var settings *muster.Settings
	for d.Next() {
		switch d.Num {
		case 1:
			k.Namespace = d.str()
		case 2:
			k.Service = d.str()
		case 3:
			settings = readSettings(d)
		}
	}
	switch {
	case d.Err() != nil:
		return nil // the caller sees it
	case k.Namespace == "" || k.Service == "" || settings == nil:
		return errNameless
	case l.s.settings[k] != nil || len(l.s.settings) == maxSettings:
		return errCount
	}
	l.s.settings[k] = settings
	if svc := l.s.dir.byKey[k]; svc != nil {
		svc.settings = settings
		svc.pub.Load().view.Settings = settings // nobody sees it yet
	}
	return nil
}

func (l *loader) trailer(d *decoder) error {
	var t blockType
	var n uint64
	for d.Next() {
		switch d.Num {
		case 1:
			t = blockType(d.uint(0xff))
		case 2:
			n = d.uint(1<<64 - 1)
		}
	}
	l.total[t] = n
	return nil
}
