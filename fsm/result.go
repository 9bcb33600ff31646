package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// Outcome is what became of one lease or instance that an operation of the
// leader's own named.
type Outcome uint8

// The outcomes.
const (
	// OutcomeDone: the operation did what it says.
	OutcomeDone Outcome = iota
	// OutcomeSkipped: the generation (or the instance) had moved since.
	OutcomeSkipped
	// OutcomeGone: there is no such lease (or instance).
	OutcomeGone
)

// Result is what became of one operation.
type Result struct {
	// Index is the index of the entry that holds the operation.
	Index uint64
	// Created and Changed say whether an instance is new, and whether anything
	// visible changed.
	Created, Changed bool
	// Dropped says that the operation named a term other than its entry's, or
	// another override than the one there is, and did nothing.
	Dropped bool
	// Instance is the instance after the operation; nil where none is left.
	Instance *muster.Instance
	// Lease is the lease that was granted or revoked.
	Lease *muster.Lease
	// Outcomes has one entry for each lease or target of Expire, Suspect, Release
	// and Reap, in order; nil where the operation was dropped.
	Outcomes []Outcome
	// Err is why the operation was rejected: it was applied and changed nothing.
	Err *muster.Error
}

// result is a Result that is encoded only when it is asked for, which followers
// never do. What it refers to is immutable.
type result struct {
	index                     uint64
	created, changed, dropped bool
	instance                  *muster.Instance
	lease                     *muster.Lease
	outcomes                  []Outcome
	err                       *muster.Error
	epoch                     bool
	term                      uint64
}

func reject(at step, err *muster.Error) result { return result{index: at.index, err: err} }

// AppendBinary appends what DecodeResult reads; for an Epoch just the term.
func (r *result) AppendBinary(b []byte) ([]byte, error) {
	if r.epoch {
		return binary.BigEndian.AppendUint64(b, r.term), nil
	}
	b = wire.AppendUint(b, 1, r.index)
	b = wire.AppendBool(b, 2, r.created)
	b = wire.AppendBool(b, 3, r.changed)
	b = wire.AppendBool(b, 4, r.dropped)
	if r.instance != nil {
		b = appendMessage(b, 5, func(b []byte) []byte {
			b = wire.AppendString(b, recordNamespace, r.instance.Namespace)
			return appendRecord(wire.AppendString(b, recordService, r.instance.Service), r.instance, nil)
		})
	}
	if r.lease != nil {
		b = appendMessage(b, 6, func(b []byte) []byte { return appendLease(b, r.lease) })
	}
	if len(r.outcomes) > 0 {
		b = protowire.AppendTag(b, 7, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(len(r.outcomes)))
		for _, o := range r.outcomes {
			b = append(b, byte(o))
		}
	}
	if r.err != nil {
		b = appendMessage(b, 8, func(b []byte) []byte { return appendError(b, r.err) })
	}
	return b, nil
}

var errOutcome = errors.New("not an outcome")

// DecodeResult reads the result of an operation other than Epoch.
func DecodeResult(b []byte) (Result, error) {
	var r Result
	d := decode(b)
	for d.Next() {
		switch d.Num {
		case 1:
			r.Index = d.index()
		case 2:
			r.Created = d.bool()
		case 3:
			r.Changed = d.bool()
		case 4:
			r.Dropped = d.bool()
		case 5:
			i, _, err := readRecord(d.message(), nil)
			if err != nil {
				d.Fail(err)
			}
			r.Instance = i
		case 6:
			r.Lease = readLease(&d)
		case 7:
			for _, o := range d.bytes(maxRecord) {
				if o > byte(OutcomeGone) {
					d.Fail(errOutcome)
				}
				r.Outcomes = append(r.Outcomes, Outcome(o))
			}
		case 8:
			r.Err = readError(&d)
		}
	}
	if d.Err() != nil {
		return Result{}, fmt.Errorf("reading the result of an operation: %w", d.Err())
	}
	return r, nil
}

func appendLease(b []byte, l *muster.Lease) []byte {
	b = wire.AppendUint(b, 1, uint64(l.ID))
	b = wire.AppendString(b, 2, l.Name)
	b = appendTTL(b, 3, l.TTL)
	b = wire.AppendBool(b, 4, l.Shared)
	b = wire.AppendUint(b, 5, l.Generation)
	for _, k := range l.Instances {
		b = appendMessage(b, 6, func(b []byte) []byte { return appendKey(b, k) })
	}
	return b
}

func readLease(d *decoder) *muster.Lease {
	l := &muster.Lease{Instances: []muster.InstanceKey{}}
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 1:
			l.ID = in.id()
		case 2:
			l.Name = in.str()
		case 3:
			l.TTL = in.ttl()
		case 4:
			l.Shared = in.bool()
		case 5:
			l.Generation = in.index()
		case 6:
			var k muster.InstanceKey
			key := in.message()
			for key.Next() {
				readKey(&k, &key)
			}
			in.nested(&key)
			l.Instances = append(l.Instances, k)
		}
	}
	d.nested(&in)
	return l
}

func appendError(b []byte, e *muster.Error) []byte {
	b = wire.AppendString(b, 1, string(e.Code))
	b = wire.AppendString(b, 2, e.Detail)
	b = wire.AppendString(b, 3, e.Hint)
	b = wire.AppendUint(b, 4, uint64(max(e.RetryAfter, 0)))
	for _, f := range e.Fields {
		b = appendMessage(b, 5, func(b []byte) []byte { return wire.AppendString(wire.AppendString(b, 1, f.Pointer), 2, f.Detail) })
	}
	return b
}

func readError(d *decoder) *muster.Error {
	e := &muster.Error{}
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 1:
			e.Code = muster.Code(in.str())
		case 2:
			e.Detail = in.str()
		case 3:
			e.Hint = in.str()
		case 4:
			e.RetryAfter = time.Duration(in.span())
		case 5:
			var f muster.FieldError
			field := in.message()
			for field.Next() {
				switch field.Num {
				case 1:
					f.Pointer = field.str()
				case 2:
					f.Detail = field.str()
				}
			}
			in.nested(&field)
			e.Fields = append(e.Fields, f)
		}
	}
	d.nested(&in)
	return e
}
