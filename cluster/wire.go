package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/muster-registry/muster/wire"
)

// The bodies of the internal calls are protobuf messages written by hand, so
// that nodes of two versions understand each other: what a reader does not know
// it skips.

// errIncomplete is of a message that reads but lacks what its sender always says.
var errIncomplete = errors.New("message is incomplete")

// message builds one message. Zero values are left out.
type message []byte

func (m *message) uint(field wire.Number, v uint64)   { *m = wire.AppendUint(*m, field, v) }
func (m *message) bool(field wire.Number, v bool)     { *m = wire.AppendBool(*m, field, v) }
func (m *message) string(field wire.Number, s string) { *m = wire.AppendString(*m, field, s) }

// bytes writes the field even where b is empty: repeated fields keep their places.
func (m *message) bytes(field wire.Number, b []byte) { *m = wire.AppendBytes(*m, field, b) }

// notLeader is part of the answers of whoever was asked as the leader and is not:
// who is, as far as it knows.
type notLeader struct{ id, addr string }

const (
	fieldNotLeader     wire.Number = 14
	fieldNotLeaderID   wire.Number = 1
	fieldNotLeaderAddr wire.Number = 2
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
	err := wire.Each(b, func(f wire.Number, _ uint64, b []byte) error {
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

// segment is what one caller wants proposed: his operations, how long he waits, and
// whether they go before others.
type segment struct {
	remaining time.Duration
	ops       [][]byte
	vital     bool
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
		in.bool(3, s.vital)
		out.bytes(1, in)
	}
	return out
}

func decodePropose(b []byte) ([]segment, error) {
	var out []segment
	ops := 0
	err := wire.Each(b, func(f wire.Number, _ uint64, b []byte) error {
		if f != 1 {
			return nil
		}
		var s segment
		err := wire.Each(b, func(f wire.Number, v uint64, b []byte) error {
			switch f {
			case 1:
				s.remaining = time.Duration(min(v, uint64(time.Hour/time.Microsecond))) * time.Microsecond
			case 2:
				if ops++; ops > MaxEntryOps {
					return fmt.Errorf("more than %d operations", MaxEntryOps)
				}
				s.ops = append(s.ops, b)
			case 3:
				s.vital = v != 0
			}
			return nil
		})
		if err == nil && len(s.ops) == 0 {
			err = errIncomplete
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
	err = wire.Each(b, func(f wire.Number, _ uint64, b []byte) (err error) {
		switch f {
		case 1:
			o := outcome{}
			err = wire.Each(b, func(f wire.Number, v uint64, b []byte) error {
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
