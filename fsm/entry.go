package fsm

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// The bounds of an entry.
const (
	// MaxOps is the most operations that Pack takes.
	MaxOps = 2000
	// MaxLeases is the most leases, or instances to reap, that one operation names.
	MaxLeases = 5000
	// MaxRestoreChunk is the most bytes that one RestoreChunk carries.
	MaxRestoreChunk = 256 << 10
	// MaxRestoreBytes is the largest backup that can be restored.
	MaxRestoreBytes = muster.MaxSnapshotBytes
)

// entryPack is the first byte of an entry: operations and a stamp. As with
// operations, the high bit of another would say that it may be ignored.
const entryPack kind = 1

// Pack makes one log entry of operations that Encode made, with the leader's
// time in milliseconds. An operation that this node cannot read (its caller runs
// a newer version, or it was damaged on the way), or that is of a feature level
// which the cluster has not reached, is replaced by a refusal, so that no committed
// entry can stop the nodes that have to apply it. More than
// MaxOps operations are a defect of the caller and panic.
func (f *FSM) Pack(ops [][]byte, stamp time.Time) []byte {
	if len(ops) > MaxOps {
		panic(fmt.Sprintf("fsm: %d operations in one entry", len(ops)))
	}
	size := 16
	for _, op := range ops {
		size += len(op) + 5
	}
	b := append(make([]byte, 0, size), byte(entryPack))
	b = wire.AppendUint(b, 1, uint64(toMillis(stamp)))
	cluster := f.FeatureLevel()
	for _, op := range ops {
		_, k, err := decodeOp(op)
		if err == nil {
			err = tooEarly(k, cluster)
		}
		if err != nil {
			f.log.Error("refuse operation that cannot be read", "err", err)
			op = wire.AppendString([]byte{byte(kindRefused)}, 1, err.Error())
		}
		b = wire.AppendBytes(b, 2, renew(op, cluster))
	}
	return b
}

// parsed is an operation of an entry.
type parsed struct {
	op   applier
	kind kind
}

var errPlaces = errors.New("entry holds too many operations")

// decodeEntry reads a whole entry, so that it is applied as a whole or not at
// all. It appends to ops.
func decodeEntry(b []byte, ops []parsed) (stamp int64, _ []parsed, err error) {
	if len(b) == 0 {
		return 0, ops, errors.New("entry is empty")
	}
	if k := kind(b[0]); k != entryPack {
		if k&kindIgnorable != 0 {
			return 0, ops, nil
		}
		return 0, ops, unknownKind("entry", b[0])
	}
	d := decode(b[1:])
	for d.Next() {
		switch d.Num {
		case 1:
			stamp = int64(d.uint(maxMillis))
		case 2:
			if d.Type != protowire.BytesType || len(ops) == 1<<muster.PlaceBits {
				d.Fail(errPlaces)
				break
			}
			op, k, err := decodeOp(d.Bytes)
			if err != nil {
				return 0, ops, fmt.Errorf("operation %d: %w", len(ops), err)
			}
			ops = append(ops, parsed{op, k})
		}
	}
	return stamp, ops, d.Err()
}

// EpochOp returns the operation that opens a leader's session. The state takes
// newClusterID as its cluster id only if it has none. The result of the
// operation is 8 bytes: the term of its entry, big-endian.
func (f *FSM) EpochOp(newClusterID string) []byte { return Encode(Epoch{ClusterID: newClusterID}) }

// MemberOp returns the operation that remembers the boot counter of a member,
// or that it was removed.
func (f *FSM) MemberOp(id string, boot uint64, removed bool) []byte {
	return Encode(Member{ID: id, Boot: boot, Removed: removed})
}
