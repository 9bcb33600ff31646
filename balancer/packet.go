package balancer

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
)

// A packet is in the protobuf wire format; unknown fields are skipped.
//
//	packet:  1 group …
//	group:   1 namespace, 2 service, 3 entry …
//	entry:   1 id, 2 successes, 3 failures, 4 latency (µs), 5 state (tell…),
//	         6 time left of an ejection (ms), 7 strikes
const (
	packetGroup protowire.Number = 1

	groupNamespace protowire.Number = 1
	groupService   protowire.Number = 2
	groupEntry     protowire.Number = 3

	entryID        protowire.Number = 1
	entrySuccesses protowire.Number = 2
	entryFailures  protowire.Number = 3
	entryLatency   protowire.Number = 4
	entryState     protowire.Number = 5
	entryLeft      protowire.Number = 6
	entryStrikes   protowire.Number = 7
)

// What an entry tells of a breaker.
const (
	tellNothing uint64 = iota
	tellOpen
	tellClosed
)

// entry is what one node tells another of an instance.
type entry struct {
	id string
	tally
	state   uint64
	left    time.Duration
	strikes int
}

func (e *entry) append(b []byte) []byte {
	number := func(num protowire.Number, v uint64) {
		if v != 0 {
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
		}
	}
	b = protowire.AppendString(protowire.AppendTag(b, entryID, protowire.BytesType), e.id)
	number(entrySuccesses, e.successes)
	number(entryFailures, e.failures)
	number(entryLatency, uint64(e.latency.Microseconds()))
	number(entryState, e.state)
	number(entryLeft, uint64(e.left.Milliseconds()))
	number(entryStrikes, uint64(e.strikes))
	return b
}

// packetWriter packs entries into packets of at most MaxPacket bytes.
type packetWriter struct {
	packets [][]byte
	packet  []byte
	head    []byte // of the group: its names
	group   []byte // head and entries
	scratch []byte
}

// service begins the entries of a service.
func (w *packetWriter) service(k muster.ServiceKey) {
	w.endGroup()
	w.head = protowire.AppendString(protowire.AppendTag(w.head[:0], groupNamespace, protowire.BytesType), k.Namespace)
	w.head = protowire.AppendString(protowire.AppendTag(w.head, groupService, protowire.BytesType), k.Service)
	w.group = append(w.group[:0], w.head...)
}

// groupFrame is the most a group's tag and length take.
const groupFrame = 4

func (w *packetWriter) entry(e *entry) {
	w.scratch = e.append(w.scratch[:0])
	size := protowire.SizeTag(groupEntry) + protowire.SizeBytes(len(w.scratch))
	if len(w.packet)+groupFrame+len(w.group)+size > MaxPacket {
		w.endGroup()
		w.endPacket()
		w.group = append(w.group[:0], w.head...)
	}
	w.group = protowire.AppendBytes(protowire.AppendTag(w.group, groupEntry, protowire.BytesType), w.scratch)
}

func (w *packetWriter) endGroup() {
	if len(w.group) > len(w.head) {
		w.packet = protowire.AppendBytes(protowire.AppendTag(w.packet, packetGroup, protowire.BytesType), w.group)
	}
	w.group = w.group[:0]
}

func (w *packetWriter) endPacket() {
	if len(w.packet) > 0 {
		w.packets = append(w.packets, w.packet)
		w.packet = nil
	}
}

func (w *packetWriter) finish() [][]byte {
	w.endGroup()
	w.endPacket()
	return w.packets
}

var errPacket = errors.New("malformed")

// readPacket calls take for every entry of a packet, as it comes to it.
func readPacket(b []byte, take func(muster.ServiceKey, *entry)) error {
	if len(b) > MaxPacket {
		return fmt.Errorf("reading a balancer packet: %d bytes are more than %d", len(b), MaxPacket)
	}
	err := fields(b, func(num protowire.Number, body []byte, _ uint64) error {
		if num != packetGroup {
			return nil
		}
		return readGroup(body, take)
	})
	if err != nil {
		return fmt.Errorf("reading a balancer packet: %w", err)
	}
	return nil
}

func readGroup(b []byte, take func(muster.ServiceKey, *entry)) error {
	var k muster.ServiceKey
	return fields(b, func(num protowire.Number, body []byte, _ uint64) error {
		switch num {
		case groupNamespace:
			k.Namespace = string(body)
		case groupService:
			k.Service = string(body)
		case groupEntry:
			if err := checkKey(k); err != nil {
				return err
			}
			e, err := readEntry(body)
			if err == nil {
				take(k, e)
			}
			return err
		}
		return nil
	})
}

// checkKey refuses names that no registry would have made.
func checkKey(k muster.ServiceKey) error {
	namespace, err := muster.CleanNamespace(k.Namespace)
	if err != nil {
		return fmt.Errorf("a namespace: %w", err)
	}
	service, err := muster.CleanService(k.Service)
	if err != nil {
		return fmt.Errorf("a service: %w", err)
	}
	if namespace != k.Namespace || service != k.Service {
		return fmt.Errorf("the service %q is not in canonical form", k)
	}
	return nil
}

func readEntry(b []byte) (*entry, error) {
	e := new(entry)
	err := fields(b, func(num protowire.Number, body []byte, n uint64) error {
		switch num {
		case entryID:
			e.id = string(body)
		case entrySuccesses:
			e.successes = min(n, MaxOutcomes)
		case entryFailures:
			e.failures = min(n, MaxOutcomes)
		case entryLatency:
			e.latency = time.Duration(min(n, uint64(time.Hour.Microseconds()))) * time.Microsecond
		case entryState:
			e.state = n
		case entryLeft:
			e.left = time.Duration(min(n, uint64(muster.MaxEjectionTime.Milliseconds()))) * time.Millisecond
		case entryStrikes:
			e.strikes = int(min(n, maxStrikes))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := muster.CheckID(e.id); err != nil {
		return nil, fmt.Errorf("an instance: %w", err)
	}
	return e, nil
}

// fields calls f for every field of b that is a varint or bytes.
func fields(b []byte, f func(num protowire.Number, body []byte, n uint64) error) error {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errPacket
		}
		b = b[size:]
		var body []byte
		var n uint64
		switch typ {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			body, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(num, typ, b)
		}
		if size < 0 {
			return errPacket
		}
		b = b[size:]
		if err := f(num, body, n); err != nil {
			return err
		}
	}
	return nil
}
