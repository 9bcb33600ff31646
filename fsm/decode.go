package fsm

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fault"
)

// applier is an operation as it was read from an entry.
type applier interface {
	apply(s *state, at step) result
}

// unknownKind is an operation or an entry that only a newer version knows.
func unknownKind(what string, kind byte) error {
	return &UpgradeError{fmt.Sprintf("%s of kind %d", what, kind)}
}

var (
	errEmptyOp = errors.New("operation is empty")
	errNoKey   = errors.New("operation names no instance")
	errNoName  = errors.New("operation names no service")
	errTooMany = errors.New("operation lists too many")
)

// ignored is an operation that is not known and may be ignored.
type ignored struct{}

func (ignored) apply(_ *state, at step) result { return result{index: at.index} }

// refused stands in an entry for an operation that the packing leader could not
// read: its caller is told, and the nodes go on.
type refused struct{ detail string }

func (o *refused) apply(_ *state, at step) result {
	return reject(at, muster.Errorf(muster.CodeInternal, "the leader could not read the operation: %s", o.detail))
}

// decodeOp reads one operation. What it returns shares no memory with b, the
// data of a RestoreChunk excepted.
func decodeOp(b []byte) (applier, kind, error) {
	if len(b) == 0 {
		return nil, 0, errEmptyOp
	}
	k, d := kind(b[0]), decode(b[1:])
	var op applier
	switch k {
	case kindRegister:
		op = readRegister(&d)
	case kindDeregister:
		op = readDeregister(&d)
	case kindExpire:
		op = readExpire(&d)
	case kindSuspect:
		op = readSuspect(&d)
	case kindRelease:
		op = readRelease(&d)
	case kindReap:
		op = readReap(&d)
	case kindSetOverride:
		op = readSetOverride(&d)
	case kindClearOverride:
		op = readClearOverride(&d)
	case kindGrantLease:
		op = readGrantLease(&d)
	case kindRevokeLease:
		op = readRevokeLease(&d)
	case kindEpoch:
		op = readEpoch(&d)
	case kindMember:
		op = readMember(&d)
	case kindRestoreBegin:
		op = readRestoreBegin(&d)
	case kindRestoreChunk:
		op = readRestoreChunk(&d)
	case kindRestoreCommit:
		op = readRestoreCommit(&d)
	case kindRestoreAbort:
		op = readRestoreAbort(&d)
	case kindJudge:
		op = readJudge(&d)
	case kindRaise:
		op = readRaise(&d)
	case kindRefused:
		op = readRefused(&d)
	case kindConfigure:
		op = readConfigure(&d)
	case kindSwitchGovernor:
		op = readSwitchGovernor(&d)
	default:
		if op = readNewest(k, &d); op == nil {
			if k&kindIgnorable == 0 && !fault.Is(fault.SkipsUnknown) {
				return nil, k, unknownKind("operation", b[0])
			}
			return ignored{}, k, nil
		}
	}
	if d.Err() != nil {
		return nil, k, fmt.Errorf("operation of kind %d: %w", k, d.Err())
	}
	return op, k, nil
}

func (d *decoder) caller(c *muster.Caller) {
	switch d.Num {
	case fieldActor:
		c.Actor = d.str()
	case fieldReason:
		c.Reason = d.str()
	}
}

func (d *decoder) condition(c *muster.Condition, who *muster.Caller) {
	switch d.Num {
	case fieldAbsent:
		c.Absent = d.bool()
	case fieldModify:
		c.ModifyIndex = d.index()
	case fieldPlace:
		c.Place = int(d.uint(1<<muster.PlaceBits)) - 1
	default:
		d.caller(who)
	}
}

// named refuses a key that lacks a part.
func (d *decoder) named(k muster.InstanceKey) {
	if d.Err() == nil && (k.Namespace == "" || k.Service == "" || k.ID == "") {
		d.Fail(errNoKey)
	}
}

func readRegister(d *decoder) *Register {
	o := &Register{Instance: new(muster.Instance), Cond: muster.Condition{Place: -1}}
	var k muster.InstanceKey
	spec := false
	for d.Next() {
		switch {
		case readKey(&k, d):
		case d.Num == 4:
			spec = true
			if err := readSpec(o.Instance, d.message(), nil); err != nil {
				d.Fail(err)
			}
		default:
			d.condition(&o.Cond, &o.Caller)
		}
	}
	if d.named(k); !spec {
		d.Fail(errNoKey)
	}
	// What has neither a TTL nor a lease is not normalized, and once stored would
	// be taken for one that is down by expiry.
	if o.Instance.TTL == 0 && o.Instance.LeaseID == 0 {
		o.Instance.TTL = muster.TTL(muster.DefaultTTL)
	}
	o.Instance.Namespace, o.Instance.Service, o.Instance.ID = k.Namespace, k.Service, k.ID
	return o
}

func readDeregister(d *decoder) *Deregister {
	o := &Deregister{Cond: muster.Condition{Place: -1}}
	for d.Next() {
		switch {
		case readKey(&o.Key, d):
		case d.Num == 4:
			o.Incarnation = d.uint(muster.MaxIncarnation)
		default:
			d.condition(&o.Cond, &o.Caller)
		}
	}
	d.named(o.Key)
	return o
}

func readExpire(d *decoder) *Expire {
	o := &Expire{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.Term = d.uint(1<<64 - 1)
		case 2:
			o.Leases = d.leases()
		case 3:
			o.Released = d.bool()
		default:
			d.caller(&o.Caller)
		}
	}
	return o
}

func readSuspect(d *decoder) *Suspect {
	o := &Suspect{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.Term = d.uint(1<<64 - 1)
		case 2:
			o.Leases = d.leases()
		case 3:
			o.Reason = d.str()
		default:
			d.caller(&o.Caller)
		}
	}
	return o
}

func readRelease(d *decoder) *Release {
	o := &Release{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.Term = d.uint(1<<64 - 1)
		case 2:
			for b := d.bytes(maxRecord); len(b) > 0 && d.Err() == nil; {
				o.Leases = append(o.Leases, muster.LeaseID(d.packed(&b)))
			}
		default:
			d.caller(&o.Caller)
		}
	}
	if len(o.Leases) > MaxLeases {
		d.Fail(errTooMany)
	}
	return o
}

func readReap(d *decoder) *Reap {
	o := &Reap{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.Term = d.uint(1<<64 - 1)
		case 2:
			var t ReapTarget
			in := d.message()
			for in.Next() {
				if !readKey(&t.Key, &in) && in.Num == 4 {
					t.ModifyIndex = in.index()
				}
			}
			d.nested(&in)
			d.named(t.Key)
			if o.Targets = append(o.Targets, t); len(o.Targets) > MaxLeases {
				d.Fail(errTooMany)
			}
		default:
			d.caller(&o.Caller)
		}
	}
	return o
}

// leases reads what appendLeases writes.
func (d *decoder) leases() (all []LeaseGen) {
	for b := d.bytes(maxRecord); len(b) > 0 && d.Err() == nil; {
		id := muster.LeaseID(d.packed(&b))
		gen := id.Index() + uint64(protowire.DecodeZigZag(d.packed(&b)))
		if all = append(all, LeaseGen{ID: id, Generation: gen}); len(all) > MaxLeases {
			d.Fail(errTooMany)
		}
	}
	return all
}

// packed takes one varint off b.
func (d *decoder) packed(b *[]byte) uint64 {
	v, n := protowire.ConsumeVarint(*b)
	if n < 0 {
		d.Fail(protowire.ParseError(n))
		return 0
	}
	*b = (*b)[n:]
	return v
}
