package fsm

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
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

// decoder walks the fields of one message in the protobuf wire format. The
// first fault ends the walk and is kept in err.
type decoder struct {
	b    []byte
	num  protowire.Number
	typ  protowire.Type
	n    uint64
	data []byte
	err  error
}

// next moves to the next field; false at the end and at a fault.
func (d *decoder) next() bool {
	if d.err != nil || len(d.b) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(d.b)
	if n < 0 {
		return d.fail(protowire.ParseError(n))
	}
	d.num, d.typ, d.n, d.data = num, typ, 0, nil
	d.b = d.b[n:]
	switch typ {
	case protowire.VarintType:
		d.n, n = protowire.ConsumeVarint(d.b)
	case protowire.BytesType:
		d.data, n = protowire.ConsumeBytes(d.b)
	default:
		n = protowire.ConsumeFieldValue(num, typ, d.b)
	}
	if n < 0 {
		return d.fail(protowire.ParseError(n))
	}
	d.b = d.b[n:]
	return true
}

func (d *decoder) fail(err error) bool {
	if d.err == nil {
		d.err = fmt.Errorf("field %d: %w", d.num, err)
	}
	return false
}

// uint is the value of a varint field of at most most.
func (d *decoder) uint(most uint64) uint64 {
	if d.typ != protowire.VarintType || d.n > most {
		d.fail(errField)
		return 0
	}
	return d.n
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
	if d.typ != protowire.BytesType || len(d.data) > most {
		d.fail(errField)
		return nil
	}
	return d.data
}

// message opens a nested message.
func (d *decoder) message() decoder { return decoder{b: d.bytes(maxRecord)} }

// nested keeps the fault of a nested message.
func (d *decoder) nested(in *decoder) {
	if in.err != nil {
		d.fail(in.err)
	}
}

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendBool(b []byte, num protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendUint(b, num, 1)
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

// appendTTL writes a TTL of which NoTTL is -1; none at all is not written.
func appendTTL(b []byte, num protowire.Number, t muster.TTL) []byte {
	if t == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(max(t, muster.NoTTL)+1))
}

func appendTime(b []byte, num protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendUint(b, num, uint64(toMillis(t)))
}

// appendMessage writes what fill appends as a nested message.
func appendMessage(b []byte, num protowire.Number, fill func([]byte) []byte) []byte {
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
