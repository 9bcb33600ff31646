package balancer

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// A packet is in the protobuf wire format; unknown fields are skipped.
//
//	packet:  1 group …
//	group:   1 namespace, 2 service, 3 entry …
//	entry:   1 id, 2 successes, 3 failures, 4 latency (µs), 5 state (tell…),
//	         6 time left of an ejection (ms), 7 strikes
const (
	packetGroup wire.Number = 1

	groupNamespace wire.Number = 1
	groupService   wire.Number = 2
	groupEntry     wire.Number = 3

	entryID        wire.Number = 1
	entrySuccesses wire.Number = 2
	entryFailures  wire.Number = 3
	entryLatency   wire.Number = 4
	entryState     wire.Number = 5
	entryLeft      wire.Number = 6
	entryStrikes   wire.Number = 7
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
	b = wire.AppendText(b, entryID, e.id)
	b = wire.AppendUint(b, entrySuccesses, e.successes)
	b = wire.AppendUint(b, entryFailures, e.failures)
	b = wire.AppendUint(b, entryLatency, uint64(e.latency.Microseconds()))
	b = wire.AppendUint(b, entryState, e.state)
	b = wire.AppendUint(b, entryLeft, uint64(e.left.Milliseconds()))
	return wire.AppendUint(b, entryStrikes, uint64(e.strikes))
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
	w.head = wire.AppendText(w.head[:0], groupNamespace, k.Namespace)
	w.head = wire.AppendText(w.head, groupService, k.Service)
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
	w.group = wire.AppendBytes(w.group, groupEntry, w.scratch)
}

func (w *packetWriter) endGroup() {
	if len(w.group) > len(w.head) {
		w.packet = wire.AppendBytes(w.packet, packetGroup, w.group)
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

// readPacket calls take for every entry of a packet, as it comes to it.
func readPacket(b []byte, take func(muster.ServiceKey, *entry)) error {
	if len(b) > MaxPacket {
		return fmt.Errorf("reading a balancer packet: %d bytes are more than %d", len(b), MaxPacket)
	}
	err := wire.Each(b, func(num wire.Number, _ uint64, body []byte) error {
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
	return wire.Each(b, func(num wire.Number, _ uint64, body []byte) error {
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
	err := wire.Each(b, func(num wire.Number, n uint64, body []byte) error {
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
