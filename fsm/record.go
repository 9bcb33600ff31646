package fsm

import (
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// base is the status of an instance below an override.
type base struct {
	status muster.Status
	cause  muster.Cause
	since  time.Time
}

// The fields of an instance as results and snapshots carry it.
const (
	recordNamespace wire.Number = iota + 1
	recordService
	recordID
	recordSpec
	recordStatus
	recordCause
	recordSince
	recordSuspect
	recordSuspectSince
	recordSuspectReason
	recordOverride
	recordRegistered
	recordCreate
	recordModify
	recordPlace
	recordBase
	recordChecksFrom
	recordHeldUntil
	recordCheckState
)

// appendRecord writes all of i but its service, and the status below its
// override where there is one.
func appendRecord(b []byte, i *muster.Instance, below *base) []byte {
	b = wire.AppendString(b, recordID, i.ID)
	b = appendMessage(b, recordSpec, func(b []byte) []byte { return appendSpec(b, i) })
	b = wire.AppendString(b, recordStatus, string(i.Status))
	b = wire.AppendString(b, recordCause, string(i.StatusCause))
	b = appendTime(b, recordSince, i.StatusSince)
	b = wire.AppendBool(b, recordSuspect, i.Suspect)
	b = appendTime(b, recordSuspectSince, i.SuspectSince)
	b = wire.AppendString(b, recordSuspectReason, i.SuspectReason)
	if i.Override != nil {
		b = appendMessage(b, recordOverride, func(b []byte) []byte { return appendOverride(b, i.Override) })
	}
	b = appendTime(b, recordRegistered, i.RegisteredAt)
	b = wire.AppendUint(b, recordCreate, i.CreateIndex)
	b = wire.AppendUint(b, recordModify, i.ModifyIndex)
	b = wire.AppendUint(b, recordPlace, uint64(i.Place))
	b = appendTime(wire.AppendUint(b, recordChecksFrom, i.ChecksFrom), recordHeldUntil, i.HeldUntil)
	for n := range i.Checks {
		b = appendMessage(b, recordCheckState, func(b []byte) []byte { return appendCheckState(b, &i.Checks[n].CheckState) })
	}
	if below != nil {
		b = appendMessage(b, recordBase, func(b []byte) []byte { return appendBase(b, below) })
	}
	return b
}

// readRecord reads an instance, and the status below its override where there
// is one. Values that are equal to those of like (which may be nil) are shared.
func readRecord(d decoder, like *muster.Instance) (i *muster.Instance, below *base, err error) {
	i = new(muster.Instance)
	var states []muster.CheckState
	for d.Next() {
		switch d.Num {
		case recordNamespace:
			i.Namespace = d.str()
		case recordService:
			i.Service = d.str()
		case recordID:
			i.ID = d.str()
		case recordSpec:
			if err := readSpec(i, d.message(), like); err != nil {
				d.Fail(err)
			}
		case recordOverride:
			o := readOverride(&d)
			i.Override = &o
		case recordBase:
			v := readBase(&d)
			below = &v
		case recordCheckState:
			if states = append(states, readCheckState(&d)); len(states) > maxList {
				d.Fail(errField)
			}
		default:
			readState(i, &d)
		}
	}
	i.Routable = routable(i)
	if d.Err() != nil {
		return i, below, d.Err()
	}
	return i, below, setCheckStates(i, states)
}

// readState reads one of the registry's own fields.
func readState(i *muster.Instance, d *decoder) {
	switch d.Num {
	case recordStatus:
		i.Status = readStatus(d)
	case recordCause:
		i.StatusCause = readCause(d)
	case recordSince:
		i.StatusSince = d.time()
	case recordSuspect:
		i.Suspect = d.bool()
	case recordSuspectSince:
		i.SuspectSince = d.time()
	case recordSuspectReason:
		i.SuspectReason = d.str()
	case recordRegistered:
		i.RegisteredAt = d.time()
	case recordCreate:
		i.CreateIndex = d.index()
	case recordModify:
		i.ModifyIndex = d.index()
	case recordChecksFrom:
		i.ChecksFrom = d.index()
	case recordHeldUntil:
		i.HeldUntil = d.time()
	case recordPlace:
		i.Place = int(d.uint(1<<muster.PlaceBits - 1))
	}
}

func appendOverride(b []byte, o *muster.Override) []byte {
	b = wire.AppendString(b, 1, string(o.Status))
	b = wire.AppendString(b, 2, o.Reason)
	b = wire.AppendString(b, 3, o.Actor)
	return appendTime(b, 4, o.Until)
}

func readOverride(d *decoder) (o muster.Override) {
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 1:
			o.Status = readStatus(&in)
		case 2:
			o.Reason = in.str()
		case 3:
			o.Actor = in.str()
		case 4:
			o.Until = in.time()
		}
	}
	d.nested(&in)
	return o
}

func appendBase(b []byte, v *base) []byte {
	b = wire.AppendString(b, 1, string(v.status))
	b = wire.AppendString(b, 2, string(v.cause))
	return appendTime(b, 3, v.since)
}

func readBase(d *decoder) (v base) {
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 1:
			v.status = readStatus(&in)
		case 2:
			v.cause = readCause(&in)
		case 3:
			v.since = in.time()
		}
	}
	d.nested(&in)
	return v
}

// statuses and causes are the words that need no memory of their own when they
// are read; others are read as well.
var (
	statuses = words(muster.StatusUnknown, muster.StatusUp, muster.StatusDown, muster.StatusDraining, muster.StatusMaintenance)
	causes   = words(
		muster.CauseRegistered, muster.CauseUpdated, muster.CauseDeregistered, muster.CauseLeaseExpired, muster.CauseLeaseRevoked,
		muster.CauseCheckFailed, muster.CauseCheckPassed, muster.CauseMaintenance, muster.CauseDrain, muster.CauseOverrideRemoved,
		muster.CauseOverrideEnded, muster.CauseSuspected, muster.CauseRenewed, muster.CauseReleased, muster.CauseRemoveAfter, muster.CauseCheckContested, muster.CauseFlapping, muster.CauseRestored)
	eventTypes = words(muster.EventRegistered, muster.EventUpdated, muster.EventDeregistered, muster.EventExpired, muster.EventStatus, muster.EventSettings)
)

func words[W ~string](all ...W) map[string]W {
	m := make(map[string]W, len(all))
	for _, w := range all {
		m[string(w)] = w
	}
	return m
}

func readWord[W ~string](d *decoder, known map[string]W) W {
	b := d.bytes(maxText)
	if w, ok := known[string(b)]; ok {
		return w
	}
	return W(b)
}

func readStatus(d *decoder) muster.Status { return readWord(d, statuses) }
func readCause(d *decoder) muster.Cause   { return readWord(d, causes) }

func routable(i *muster.Instance) bool { return i.Status == muster.StatusUp && i.Weight > 0 }

// Expired reports whether i is kept although its lease ran out ("on_expiry":
// "down"): it is down below any override, hangs on no lease, and a heartbeat for
// it is answered as for an unknown instance.
func Expired(i *muster.Instance) bool { return i.LeaseID == 0 && i.TTL != muster.NoTTL }

// readKey reads a part of the key of an instance; false where the field is none.
func readKey(k *muster.InstanceKey, d *decoder) bool {
	switch d.Num {
	case 1:
		k.Namespace = d.str()
	case 2:
		k.Service = d.str()
	case 3:
		k.ID = d.str()
	default:
		return false
	}
	return true
}

func appendKey(b []byte, k muster.InstanceKey) []byte {
	return wire.AppendString(wire.AppendString(wire.AppendString(b, 1, k.Namespace), 2, k.Service), 3, k.ID)
}

func keyOf(i *muster.Instance) muster.InstanceKey {
	return muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}
}
