package lease

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// beatMsg passes heartbeats on to the leader: leases first, then names.
type beatMsg struct {
	// wait asks to wait for the outcome of expiries in flight. Otherwise such
	// leases are answered as pending, so that a slow disk does not hold up the
	// renewals of others.
	wait bool
	// shed is how many heartbeats this node has refused for overload since it
	// last said so.
	shed  uint64
	names []Name
}

func (m *beatMsg) append(b []byte) []byte {
	b = wire.AppendNumber(b, 1, flag(m.wait))
	b = wire.AppendNumber(b, 2, m.shed)
	for i := range m.names {
		n := &m.names[i]
		var in []byte
		if n.Lease != 0 {
			in = protowire.AppendFixed64(protowire.AppendTag(in, 1, protowire.Fixed64Type), uint64(n.Lease))
		} else {
			in = wire.AppendText(in, 2, n.Instance.Namespace)
			in = wire.AppendText(in, 3, n.Instance.Service)
			in = wire.AppendText(in, 4, n.Instance.ID)
			if n.Incarnation != 0 {
				in = wire.AppendNumber(in, 5, n.Incarnation)
			}
		}
		b = wire.AppendBytes(b, 3, in)
	}
	return b
}

func (m *beatMsg) parse(b []byte) error {
	m.names = make([]Name, 0, min(maxBeat, len(b)/11))
	return wire.Each(b, func(num wire.Number, v uint64, raw []byte) error {
		switch num {
		case 1:
			m.wait = v != 0
		case 2:
			m.shed = min(v, 1<<32)
		case 3:
			if len(m.names) == maxBeat {
				return fmt.Errorf("%w: more than %d heartbeats", wire.ErrMalformed, maxBeat)
			}
			n, err := parseName(raw)
			m.names = append(m.names, n)
			return err
		}
		return nil
	})
}

func parseName(b []byte) (n Name, err error) {
	if len(b) == 9 && b[0] == byte(protowire.EncodeTag(1, protowire.Fixed64Type)) {
		v, _ := protowire.ConsumeFixed64(b[1:])
		n.Lease = muster.LeaseID(v)
	}
	err = wire.Each(b, func(num wire.Number, v uint64, raw []byte) error {
		if len(raw) > muster.MaxNameLen {
			return fmt.Errorf("%w: a name of %d bytes", wire.ErrMalformed, len(raw))
		}
		switch num {
		case 2:
			n.Instance.Namespace = string(raw)
		case 3:
			n.Instance.Service = string(raw)
		case 4:
			n.Instance.ID = string(raw)
		case 5:
			n.Incarnation = v
		}
		return nil
	})
	return n, err
}

// beatAck answers a beatMsg, a verdict for each name in order.
type beatAck struct {
	stretch  int // of the pace, in thousandths
	verdicts []Result
}

// Each verdict is one varint: its TTL in milliseconds and its state.
const stateBits = 3

func (m *beatAck) append(b []byte) []byte {
	b = wire.AppendNumber(b, 1, uint64(m.stretch))
	packed := make([]byte, 0, 4*len(m.verdicts))
	for _, v := range m.verdicts {
		packed = protowire.AppendVarint(packed, uint64(v.TTL/time.Millisecond)<<stateBits|uint64(v.State))
	}
	return wire.AppendBytes(b, 2, packed)
}

func (m *beatAck) parse(b []byte) error {
	m.stretch = 1000
	return wire.Each(b, func(num wire.Number, v uint64, raw []byte) error {
		switch num {
		case 1:
			m.stretch = int(min(max(v, 1000), maxStretch))
		case 2:
			if m.verdicts == nil {
				m.verdicts = make([]Result, 0, min(maxBeat, len(raw)))
			}
			return eachVarint(raw, maxBeat-len(m.verdicts), func(v uint64) error {
				ttl := min(time.Duration(v>>stateBits), muster.MaxTTL/time.Millisecond) * time.Millisecond
				state := Standing(v & (1<<stateBits - 1))
				if state >= standings {
					return fmt.Errorf("%w: standing %d", wire.ErrMalformed, state)
				}
				m.verdicts = append(m.verdicts, Result{State: state, TTL: ttl})
				return nil
			})
		}
		return nil
	})
}

// lookMsg asks the leader how much of a lease remains, and lookAck answers.
type lookMsg struct{ id muster.LeaseID }

func (m *lookMsg) append(b []byte) []byte {
	return appendIDs(b, 1, []muster.LeaseID{m.id})
}

func (m *lookMsg) parse(b []byte) error {
	return wire.Each(b, func(num wire.Number, _ uint64, raw []byte) error {
		if num != 1 {
			return nil
		}
		ids, err := parseIDs(nil, raw)
		if err == nil && len(ids) == 1 {
			m.id = ids[0]
		}
		return err
	})
}

type lookAck struct {
	known     bool
	remaining time.Duration
}

func (m *lookAck) append(b []byte) []byte {
	return wire.AppendNumber(wire.AppendNumber(b, 1, flag(m.known)), 2, uint64(max(0, m.remaining)))
}

func (m *lookAck) parse(b []byte) error {
	return wire.Each(b, func(num wire.Number, v uint64, _ []byte) (err error) {
		switch num {
		case 1:
			m.known = v != 0
		case 2:
			m.remaining, err = span(v)
		}
		return err
	})
}
