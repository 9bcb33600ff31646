package muster

import (
	"strconv"
	"strings"
)

// An index is a plain integer to users, below 2^53, that never goes backwards
// within one cluster id: epoch<<EpochShift | raft index. The epoch is 0 until a
// backup is restored, and each restore raises it.
const (
	// EpochShift is the number of bits of the raft index within an index.
	EpochShift = 40
	// MaxIndex is the largest index there can be.
	MaxIndex = 1<<53 - 1
	// PlaceBits is the number of bits of an operation's place within its log
	// entry: at most 2^PlaceBits operations an entry.
	PlaceBits = 11
)

// MakeIndex joins an epoch and a raft index.
func MakeIndex(epoch, raftIndex uint64) uint64 {
	return epoch<<EpochShift | raftIndex&(1<<EpochShift-1)
}

// SplitIndex splits an index into its epoch and its raft index.
func SplitIndex(index uint64) (epoch, raftIndex uint64) {
	return index >> EpochShift, index & (1<<EpochShift - 1)
}

// LeaseID names a lease: the index of the log entry that granted it and the
// place within that entry. It reads and writes as "42-0".
type LeaseID uint64

// MakeLeaseID joins an index and a place, which is below 2^PlaceBits.
func MakeLeaseID(index uint64, place int) LeaseID {
	return LeaseID(index<<PlaceBits | uint64(place))
}

// Index is the index of the entry that granted the lease.
func (id LeaseID) Index() uint64 { return uint64(id) >> PlaceBits }

// Place is the lease's place within that entry.
func (id LeaseID) Place() int { return int(id & (1<<PlaceBits - 1)) }

// IsZero reports whether id names no lease.
func (id LeaseID) IsZero() bool { return id == 0 }

// String renders id as "index-place", "" for the zero id.
func (id LeaseID) String() string {
	if id == 0 {
		return ""
	}
	return strconv.FormatUint(id.Index(), 10) + "-" + strconv.Itoa(id.Place())
}

// MarshalText renders id as String does.
func (id LeaseID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what String writes.
func (id *LeaseID) UnmarshalText(b []byte) error {
	v, err := ParseLeaseID(string(b))
	if err == nil {
		*id = v
	}
	return err
}

// ParseLeaseID reads "index-place"; "" is the zero id.
func ParseLeaseID(s string) (LeaseID, error) {
	if s == "" {
		return 0, nil
	}
	index, place, err := parsePair(s)
	if err != nil {
		return 0, Errorf(CodeUnknownLease, "%q is not a lease id", clip(s)).WithHint(`a lease id looks like "42-0"`)
	}
	return MakeLeaseID(index, place), nil
}

// ParseIndex reads an index as users send it: decimal digits, at most MaxIndex.
func ParseIndex(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > MaxIndex || s[0] == '+' {
		return 0, Errorf(CodeInvalidIndex, "%q is not an index", clip(s)).
			WithHint("send the Muster-Index of an earlier answer, a whole number from 0 to 2^53-1")
	}
	return n, nil
}

func parsePair(s string) (index uint64, place int, err error) {
	left, right, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, strconv.ErrSyntax
	}
	if index, err = strconv.ParseUint(left, 10, 64); err != nil {
		return 0, 0, err
	}
	p, err := strconv.ParseUint(right, 10, 16)
	if err != nil || p >= 1<<PlaceBits || index == 0 || index > MaxIndex {
		return 0, 0, strconv.ErrRange
	}
	return index, int(p), nil
}
