// Package wire reads and writes single messages in the protobuf wire format, by hand
// and without a schema: what nodes say to each other, what stands in the log and in
// snapshots. A reader meets every field in the order of the message and takes those it
// knows, so that nodes of two versions understand each other. What is read is bounded
// by the message: nothing is allocated here, and a length that reaches beyond the end
// is ErrMalformed.
//
// It is not for the meaning of a message, nor for its limits, which belong to the room
// whose message it is; nor for framing on a connection. A Reader belongs to one
// goroutine; everything else may be called concurrently.
//
// The format: https://protobuf.dev/programming-guides/encoding/.
package wire

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Number is the number of a field within its message, from 1.
type Number = protowire.Number

// ErrMalformed is in the chain of the error of a message that cannot be read: it is
// cut short, or a tag, a number or a length is none.
var ErrMalformed = errors.New("malformed message")

// Reader walks the fields of one message in order. The first fault ends the walk.
//
//	r := wire.Read(b)
//	for r.Next() {
//		switch r.Num {
//		case 1:
//			term = r.Uint
//		}
//	}
//	return term, r.Err()
type Reader struct {
	// Num and Type are of the field that Next moved to.
	Num  Number
	Type protowire.Type
	// Uint is the value of a field of Type protowire.VarintType, else 0.
	Uint uint64
	// Bytes is the value of a field of Type protowire.BytesType, else nil. It is a part
	// of the message, and of Reader's input.
	Bytes []byte

	rest []byte
	err  error
}

// Read returns a Reader of b, before its first field. It keeps b.
func Read(b []byte) Reader { return Reader{rest: b} }

// Next moves to the next field, whatever its type; it is false at the end and after a
// fault.
func (r *Reader) Next() bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(r.rest)
	if n < 0 {
		return r.malformed(n)
	}
	r.Num, r.Type, r.Uint, r.Bytes = num, typ, 0, nil
	r.rest = r.rest[n:]
	switch typ {
	case protowire.VarintType:
		r.Uint, n = protowire.ConsumeVarint(r.rest)
	case protowire.BytesType:
		r.Bytes, n = protowire.ConsumeBytes(r.rest)
	default:
		n = protowire.ConsumeFieldValue(num, typ, r.rest)
	}
	if n < 0 {
		return r.malformed(n)
	}
	r.rest = r.rest[n:]
	return true
}

func (r *Reader) malformed(n int) bool {
	r.Fail(fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n)))
	return false
}

// Fail ends the walk at the field it has come to, as a fault of the message does. Of
// several faults the first is kept.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = fmt.Errorf("field %d: %w", r.Num, err)
	}
}

// Err is the fault that ended the walk, nil where the message was read to its end.
func (r *Reader) Err() error { return r.err }

// Each calls fn for every field of b that is a number (v) or bytes (raw, which is part
// of b); fields of other types are skipped. It returns the first error, fn's as it is.
func Each(b []byte, fn func(num Number, v uint64, raw []byte) error) error {
	r := Read(b)
	for r.Next() {
		if r.Type != protowire.VarintType && r.Type != protowire.BytesType {
			continue
		}
		if err := fn(r.Num, r.Uint, r.Bytes); err != nil {
			return err
		}
	}
	return r.err
}
