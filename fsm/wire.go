package fsm

import (
	"errors"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// What is read back is bounded more generously than what clients may send, so
// that raising one of their limits later does not make nodes of two versions
// disagree about an entry. Whatever is read allocates in proportion to its bytes.
const (
	maxText   = 64 << 10 // bytes of one string
	maxRecord = 512 << 10
	maxList   = 4096 // tags, ports, metadata pairs, checks of one instance
)

// maxMillis is the last millisecond of the year 9999, the last that RFC 3339
// (and with it the JSON of a view) can write.
const maxMillis = 253402300799999

var errField = errors.New("field has an unexpected form")

// decoder walks the fields of one message. A field that it is asked for must have the
// form it is asked in: what nodes would read differently none may read.
type decoder struct{ wire.Reader }

func decode(b []byte) decoder { return decoder{wire.Read(b)} }

// uint is the value of a varint field of at most most.
func (d *decoder) uint(most uint64) uint64 {
	if d.Type != protowire.VarintType || d.Uint > most {
		d.Fail(errField)
		return 0
	}
	return d.Uint
}

func (d *decoder) int() int           { return int(d.uint(math.MaxInt32)) }
func (d *decoder) bool() bool         { return d.uint(1) == 1 }
func (d *decoder) index() uint64      { return d.uint(muster.MaxIndex) }
func (d *decoder) time() time.Time    { return fromMillis(int64(d.uint(maxMillis))) }
func (d *decoder) str() string        { return string(d.bytes(maxText)) }
func (d *decoder) id() muster.LeaseID { return muster.LeaseID(d.uint(math.MaxUint64)) }

// strLike is a string, and like itself where it is equal.
func (d *decoder) strLike(like string) string {
	if b := d.bytes(maxText); string(b) != like {
		return string(b)
	}
	return like
}

// span is a duration that is not negative.
func (d *decoder) span() int64 { return int64(d.uint(math.MaxInt64 / 2)) }

// ttl is what appendTTL writes.
func (d *decoder) ttl() muster.TTL {
	return muster.TTL(int64(d.uint(math.MaxInt64/2)) - 1)
}

// bytes is the value of a bytes field of at most most bytes; it aliases the input.
func (d *decoder) bytes(most int) []byte {
	if d.Type != protowire.BytesType || len(d.Bytes) > most {
		d.Fail(errField)
		return nil
	}
	return d.Bytes
}

// message opens a nested message.
func (d *decoder) message() decoder { return decode(d.bytes(maxRecord)) }

// nested keeps the fault of a nested message.
func (d *decoder) nested(in *decoder) {
	if err := in.Err(); err != nil {
		d.Fail(err)
	}
}

// appendTTL writes a TTL of which NoTTL is -1; none at all is not written.
func appendTTL(b []byte, num wire.Number, t muster.TTL) []byte {
	if t == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(max(t, muster.NoTTL)+1))
}

func appendTime(b []byte, num wire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return wire.AppendUint(b, num, uint64(toMillis(t)))
}

// appendMessage writes what fill appends as a nested message.
func appendMessage(b []byte, num wire.Number, fill func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	mark := len(b)
	b = fill(append(b, 0))
	size := len(b) - mark - 1
	if size < 1<<7 {
		b[mark] = byte(size)
		return b
	}
	// The length needs more than the one byte kept for it: move the message up.
	more := protowire.SizeVarint(uint64(size)) - 1
	b = append(b, make([]byte, more)...)
	copy(b[mark+1+more:], b[mark+1:mark+1+size])
	protowire.AppendVarint(b[:mark], uint64(size))
	return b
}

// toMillis is t in unix milliseconds, from 1 to the end of the year 9999.
func toMillis(t time.Time) int64 { return min(max(t.UnixMilli(), 1), maxMillis) }

// fromMillis is the inverse of toMillis; 0 is the zero time.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
