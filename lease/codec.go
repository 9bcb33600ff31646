package lease

import (
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// The messages between members, in the protobuf wire format. Unknown fields are
// skipped; everything is bounded before it is allocated.
const (
	// maxIDs is the most ids of one message.
	maxIDs = 1 << 17
	// maxBeat is the most leases and instances of one forwarded heartbeat.
	maxBeat = 1 << 13
	// maxParts is the most parts a shadow is gathered in.
	maxParts = 1 << 10
)

// renewMsg tells a voter who was heard from.
type renewMsg struct {
	term uint64
	// outage is known only once the shadows have been gathered.
	outage      Outage
	outageKnown bool
	ids         []muster.LeaseID
	// echo is the stamp of an acknowledgement of the receiver's that the leader got
	// before it wrote this; 0: none.
	echo uint64
}

func (m *renewMsg) append(b []byte) []byte {
	b = wire.AppendNumber(b, 1, m.term)
	if m.outageKnown {
		b = wire.AppendNumber(b, 2, uint64(max(0, m.outage.Last)))
		b = wire.AppendNumber(b, 4, uint64(max(0, m.outage.Total)))
	}
	b = appendIDs(b, 3, m.ids)
	if m.echo != 0 {
		b = appendEcho(b, m.echo)
	}
	return b
}

// appendEcho makes a message to all voters one to one of them.
func appendEcho(b []byte, echo uint64) []byte { return wire.AppendNumber(b, 5, echo) }

func (m *renewMsg) parse(b []byte) error {
	return wire.Each(b, func(num wire.Number, v uint64, raw []byte) (err error) {
		switch num {
		case 1:
			m.term = v
		case 2:
			m.outage.Last, err = span(v)
			m.outageKnown = true
		case 3:
			m.ids, err = parseIDs(m.ids, raw)
		case 4:
			m.outage.Total, err = span(v)
		case 5:
			m.echo = v
		}
		return err
	})
}

// renewAck answers a renewMsg: ok acknowledges, term is the receiver's, and stamp
// is for the leader to echo.
type renewAck struct {
	ok    bool
	term  uint64
	stamp uint64
}

func (m *renewAck) append(b []byte) []byte {
	b = wire.AppendNumber(wire.AppendNumber(b, 1, flag(m.ok)), 2, m.term)
	return wire.AppendNumber(b, 3, m.stamp)
}

func (m *renewAck) parse(b []byte) error {
	return wire.Each(b, func(num wire.Number, v uint64, _ []byte) error {
		switch num {
		case 1:
			m.ok = v != 0
		case 2:
			m.term = v
		case 3:
			m.stamp = v
		}
		return nil
	})
}

// gatherMsg asks a voter for a part of its shadow, on behalf of a new leader.
type gatherMsg struct {
	term        uint64
	part, parts int
}

func (m *gatherMsg) append(b []byte) []byte {
	b = wire.AppendNumber(b, 1, m.term)
	return wire.AppendNumber(wire.AppendNumber(b, 2, uint64(m.part)), 3, uint64(m.parts))
}

func (m *gatherMsg) parse(b []byte) error {
	m.parts = 1
	err := wire.Each(b, func(num wire.Number, v uint64, _ []byte) error {
		switch num {
		case 1:
			m.term = v
		case 2:
			m.part = int(min(v, maxParts))
		case 3:
			m.parts = int(min(v, maxParts+1))
		}
		return nil
	})
	if err == nil && (m.parts < 1 || m.parts > maxParts || m.part >= m.parts) {
		err = fmt.Errorf("%w: part %d of %d", wire.ErrMalformed, m.part, m.parts)
	}
	return err
}

// gatherAck answers a gatherMsg. Not ok: the receiver has not reached that term.
type gatherAck struct {
	ok     bool
	shadow Shadow
}

func (m *gatherAck) append(b []byte) []byte {
	s := &m.shadow
	b = wire.AppendNumber(b, 1, flag(m.ok))
	b = wire.AppendNumber(b, 2, uint64(s.Age))
	b = wire.AppendNumber(b, 3, uint64(s.AckAge))
	b = wire.AppendNumber(b, 4, uint64(s.told.stalled))
	b = wire.AppendNumber(b, 7, s.Applied)
	if s.told.any {
		b = wire.AppendNumber(b, 8, uint64(s.told.total))
	}
	b = appendIDs(b, 5, s.IDs)
	packed := make([]byte, 0, 3*len(s.Ages))
	for _, age := range s.Ages {
		// Rounded down: younger is never early.
		packed = protowire.AppendVarint(packed, uint64(age/time.Millisecond))
	}
	return wire.AppendBytes(b, 6, packed)
}

func (m *gatherAck) parse(b []byte) error {
	s := &m.shadow
	err := wire.Each(b, func(num wire.Number, v uint64, raw []byte) (err error) {
		switch num {
		case 1:
			m.ok = v != 0
		case 2:
			s.Age, err = span(v)
		case 3:
			s.AckAge, err = span(v)
		case 4:
			s.told.stalled, err = span(v)
		case 5:
			s.IDs, err = parseIDs(s.IDs, raw)
		case 6:
			err = eachVarint(raw, maxIDs-len(s.Ages), func(v uint64) error {
				age, err := span(min(v, maxSpan/uint64(time.Millisecond)) * uint64(time.Millisecond))
				s.Ages = append(s.Ages, age)
				return err
			})
		case 7:
			s.Applied = v
		case 8:
			s.told.total, err = span(v)
			s.told.any = true
		}
		return err
	})
	if err == nil && len(s.IDs) != len(s.Ages) {
		err = fmt.Errorf("%w: %d ids and %d ages", wire.ErrMalformed, len(s.IDs), len(s.Ages))
	}
	return err
}

// maxSpan bounds durations on the wire: about 36 years, so that sums of them do
// not overflow.
const maxSpan = 1 << 60

func span(v uint64) (time.Duration, error) {
	if v > maxSpan {
		return 0, fmt.Errorf("%w: a duration of %d ns", wire.ErrMalformed, v)
	}
	return time.Duration(v), nil
}

func flag(ok bool) uint64 {
	if ok {
		return 1
	}
	return 0
}

func appendIDs(b []byte, num wire.Number, ids []muster.LeaseID) []byte {
	b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(8*len(ids)))
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint64(b, uint64(id))
	}
	return b
}

func parseIDs(ids []muster.LeaseID, raw []byte) ([]muster.LeaseID, error) {
	if len(raw)%8 != 0 || len(ids)+len(raw)/8 > maxIDs {
		return nil, fmt.Errorf("%w: %d bytes of ids", wire.ErrMalformed, len(raw))
	}
	if ids == nil {
		ids = make([]muster.LeaseID, 0, len(raw)/8)
	}
	for ; len(raw) > 0; raw = raw[8:] {
		ids = append(ids, muster.LeaseID(binary.LittleEndian.Uint64(raw)))
	}
	return ids, nil
}

func eachVarint(raw []byte, most int, fn func(v uint64) error) error {
	for len(raw) > 0 {
		v, n := protowire.ConsumeVarint(raw)
		if most--; n < 0 || most < 0 {
			return wire.ErrMalformed
		}
		raw = raw[n:]
		if err := fn(v); err != nil {
			return err
		}
	}
	return nil
}
