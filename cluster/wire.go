package cluster

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The bodies of the internal calls are protobuf messages written by hand, so
// that nodes of two versions understand each other: what a reader does not know
// it skips.

var errTruncated = errors.New("message is cut short")

// message builds one message. Zero values are left out.
type message []byte

func (m *message) uint(field protowire.Number, v uint64) {
	if v != 0 {
		*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), v)
	}
}

func (m *message) bool(field protowire.Number, v bool) {
	if v {
		m.uint(field, 1)
	}
}

func (m *message) string(field protowire.Number, s string) {
	if s != "" {
		*m = protowire.AppendString(protowire.AppendTag(*m, field, protowire.BytesType), s)
	}
}

// bytes writes the field even where b is empty: repeated fields keep their places.
func (m *message) bytes(field protowire.Number, b []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), b)
}

// eachField calls fn for the fields of a message: v for numbers, b for the rest.
// b is part of the message and must not be kept beyond it.
func eachField(msg []byte, fn func(field protowire.Number, v uint64, b []byte) error) error {
	for len(msg) > 0 {
		field, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return errTruncated
		}
		msg = msg[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(msg)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(msg)
		default:
			n = protowire.ConsumeFieldValue(field, typ, msg)
		}
		if n < 0 {
			return errTruncated
		}
		msg = msg[n:]
		if err := fn(field, v, b); err != nil {
			return err
		}
	}
	return nil
}

// notLeader is part of the answers of whoever was asked as the leader and is not:
// who is, as far as it knows.
type notLeader struct{ id, addr string }

const (
	fieldNotLeader     protowire.Number = 14
	fieldNotLeaderID   protowire.Number = 1
	fieldNotLeaderAddr protowire.Number = 2
)

func (l *notLeader) encode() []byte {
	var in, out message
	in.string(fieldNotLeaderID, l.id)
	in.string(fieldNotLeaderAddr, l.addr)
	out.bytes(fieldNotLeader, in)
	return out
}

func decodeNotLeader(b []byte) (*notLeader, error) {
	l := &notLeader{}
	err := eachField(b, func(f protowire.Number, _ uint64, b []byte) error {
		switch f {
		case fieldNotLeaderID:
			l.id = string(b)
		case fieldNotLeaderAddr:
			l.addr = string(b)
		}
		return nil
	})
	return l, err
}

// segment is what one caller wants proposed: its operations and how long he waits.
type segment struct {
	remaining time.Duration
	ops       [][]byte
}

// encodePropose writes the request of method propose.
func encodePropose(segments []segment) []byte {
	size := 0
	for _, s := range segments {
		for _, op := range s.ops {
			size += len(op) + 8
		}
	}
	out := make(message, 0, size+16*len(segments))
	for _, s := range segments {
		var in message
		in.uint(1, uint64(max(0, s.remaining.Microseconds())))
		for _, op := range s.ops {
			in.bytes(2, op)
		}
		out.bytes(1, in)
	}
	return out
}

func decodePropose(b []byte) ([]segment, error) {
	var out []segment
	ops := 0
	err := eachField(b, func(f protowire.Number, _ uint64, b []byte) error {
		if f != 1 {
			return nil
		}
		var s segment
		err := eachField(b, func(f protowire.Number, v uint64, b []byte) error {
			switch f {
			case 1:
				s.remaining = time.Duration(min(v, uint64(time.Hour/time.Microsecond))) * time.Microsecond
			case 2:
				s.ops = append(s.ops, b)
				ops++
			}
			return nil
		})
		if err == nil && ops > MaxEntryOps {
			err = fmt.Errorf("more than %d operations", MaxEntryOps)
		}
		out = append(out, s)
		return err
	})
	return out, err
}

// encodeOutcomes writes the answer of method propose: one outcome per operation
// in the order of the request.
func encodeOutcomes(outs []outcome) []byte {
	var m message
	for i := range outs {
		o := &outs[i]
		var in message
		in.uint(1, uint64(o.fate))
		if o.fate == fateApplied {
			in.bytes(2, o.result)
		} else {
			in.string(3, o.detail)
		}
		m.bytes(1, in)
	}
	return m
}

func decodeOutcomes(b []byte) (outs []outcome, redirect *notLeader, err error) {
	err = eachField(b, func(f protowire.Number, _ uint64, b []byte) (err error) {
		switch f {
		case 1:
			o := outcome{}
			err = eachField(b, func(f protowire.Number, v uint64, b []byte) error {
				switch f {
				case 1:
					o.fate = fate(v)
				case 2:
					o.result = b
				case 3:
					o.detail = string(b)
				}
				return nil
			})
			outs = append(outs, o)
		case fieldNotLeader:
			redirect, err = decodeNotLeader(b)
		}
		return err
	})
	return outs, redirect, err
}
