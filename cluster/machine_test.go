package cluster_test

import (
	"context"
	"encoding"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// machine is a small state machine: a list of what was written, the members'
// affairs, and the cluster's id.
type machine struct {
	gate    func(what string) // called before a batch is applied ("apply") and when a snapshot was read ("restore")
	known   uint64            // the feature level of its build; set before it is used
	mu      sync.Mutex
	state   machineState
	applied uint64
	changed chan struct{}
}

type machineState struct {
	ClusterID string
	Writes    []string
	Boots     map[string]uint64
	Removed   map[string]bool
	Level     uint64
}

func newMachine() *machine {
	return &machine{
		state:   machineState{Boots: make(map[string]uint64), Removed: make(map[string]bool)},
		changed: make(chan struct{}),
	}
}

type result []byte

func (r result) AppendBinary(b []byte) ([]byte, error) { return append(b, r...), nil }

// An operation is a kind and a body.
const (
	opWrite  = 'w'
	opEpoch  = 'e'
	opMember = 'm'
	opLevel  = 'l'
)

type memberOp struct {
	ID      string
	Boot    uint64
	Removed bool
}

func (m *machine) Pack(ops [][]byte, stamp time.Time) []byte {
	b := binary.AppendVarint(nil, stamp.UnixMilli())
	for _, op := range ops {
		b = append(binary.AppendUvarint(b, uint64(len(op))), op...)
	}
	return b
}

func unpack(b []byte) (ops [][]byte) {
	_, n := binary.Varint(b)
	for b = b[n:]; len(b) > 0; {
		size, n := binary.Uvarint(b)
		ops = append(ops, b[n:n+int(size)])
		b = b[n+int(size):]
	}
	return ops
}

func (m *machine) FeatureLevel() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.state.Level, 1)
}

func (m *machine) KnownLevel() uint64 { return max(m.known, 1) }

func (m *machine) LevelOp(_, level uint64) []byte { return []byte{opLevel, byte(level)} }

func (m *machine) EpochOp(newClusterID string) []byte {
	return append([]byte{opEpoch}, newClusterID...)
}

func (m *machine) MemberOp(id string, boot uint64, removed bool) []byte {
	b, _ := json.Marshal(memberOp{id, boot, removed})
	return append([]byte{opMember}, b...)
}

func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	if m.gate != nil {
		m.gate("apply")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]any, len(logs))
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			var results []encoding.BinaryAppender
			for place, op := range unpack(l.Data) {
				results = append(results, m.apply(l, place, op))
			}
			out[i] = results
		}
		m.applied = l.Index
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return out
}

func (m *machine) apply(l *raft.Log, place int, op []byte) result {
	switch op[0] {
	case opEpoch:
		if m.state.ClusterID == "" {
			m.state.ClusterID = string(op[1:])
		}
		return binary.BigEndian.AppendUint64(nil, l.Term)
	case opLevel:
		m.state.Level = max(m.state.Level, uint64(op[1]))
		return nil
	case opMember:
		var o memberOp
		if err := json.Unmarshal(op[1:], &o); err != nil {
			panic(err)
		}
		m.state.Boots[o.ID] = max(m.state.Boots[o.ID], o.Boot)
		m.state.Removed[o.ID] = m.state.Removed[o.ID] || o.Removed
		return nil
	}
	m.state.Writes = append(m.state.Writes, string(op[1:]))
	return append(binary.BigEndian.AppendUint64(nil, l.Index), op[1:]...)
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := json.Marshal(struct {
		machineState
		Applied uint64
	}{m.state, m.applied})
	return machineSnapshot(b), err
}

type machineSnapshot []byte

func (s machineSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (machineSnapshot) Release() {}

func (m *machine) Restore(r io.ReadCloser) error {
	var s struct {
		machineState
		Applied uint64
	}
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	if m.gate != nil {
		m.gate("restore")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.applied = s.machineState, s.Applied
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

func (m *machine) Applied() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

func (m *machine) WaitApplied(ctx context.Context, index uint64) error {
	for {
		m.mu.Lock()
		reached, changed := m.applied >= index, m.changed
		m.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *machine) MemberBoot(id string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Boots[id]
}

func (m *machine) MemberRemoved(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Removed[id]
}

func (m *machine) ClusterID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.ClusterID
}

// writes is what was written, in order.
func (m *machine) writes() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.state.Writes...)
}
