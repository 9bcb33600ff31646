package wire_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster/wire"
)

// field is what Each says of one field.
type field struct {
	num wire.Number
	v   uint64
	raw string
}

func each(b []byte) (got []field, err error) {
	err = wire.Each(b, func(num wire.Number, v uint64, raw []byte) error {
		got = append(got, field{num, v, string(raw)})
		return nil
	})
	return got, err
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	var b []byte
	b = wire.AppendUint(b, 1, math.MaxUint64)
	b = wire.AppendUint(b, 2, 0)
	b = wire.AppendNumber(b, 3, 0)
	b = wire.AppendBool(b, 4, true)
	b = wire.AppendBool(b, 5, false)
	b = wire.AppendString(b, 6, "é")
	b = wire.AppendString(b, 7, "")
	b = wire.AppendText(b, 8, "")
	b = wire.AppendBytes(b, 9, nil)
	b = wire.AppendBytes(b, 9, []byte{0})
	got, err := each(b)
	want := []field{{1, math.MaxUint64, ""}, {3, 0, ""}, {4, 1, ""}, {6, 0, "é"}, {8, 0, ""}, {9, 0, ""}, {9, 0, "\x00"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %v, %v, want %v", got, err, want)
	}
}

// TestOfALaterVersion reads past types of fields that no message of ours has.
func TestOfALaterVersion(t *testing.T) {
	b := wire.AppendUint(nil, 1, 7)
	b = protowire.AppendFixed32(protowire.AppendTag(b, 1, protowire.Fixed32Type), 1)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 1, protowire.Fixed64Type), 1)
	b = protowire.AppendTag(b, 2, protowire.StartGroupType)
	b = wire.AppendUint(b, 1, 8) // is the group's, not the message's
	b = protowire.AppendTag(b, 2, protowire.EndGroupType)
	b = wire.AppendString(b, 3, "end")
	got, err := each(b)
	want := []field{{1, 7, ""}, {3, 0, "end"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %v, %v, want %v", got, err, want)
	}
	r, fields := wire.Read(b), 0
	for r.Next() {
		fields++
	}
	if r.Err() != nil || fields != 5 {
		t.Errorf("a Reader met %d fields, %v, want all 5", fields, r.Err())
	}
}

func TestMalformed(t *testing.T) {
	whole := wire.AppendBytes(wire.AppendUint(nil, 1, 300), 2, []byte("text"))
	first := len(wire.AppendUint(nil, 1, 300))
	for n := 1; n < len(whole); n++ {
		got, err := each(whole[:n])
		if n == first {
			if err != nil || len(got) != 1 {
				t.Errorf("one whole field: read %v, %v", got, err)
			}
			continue
		}
		if !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("cut after %d bytes: read %v, %v, want ErrMalformed", n, got, err)
		}
	}
	for name, b := range map[string][]byte{
		"field 0":               {0, 0},
		"a reserved type":       {1<<3 | 7, 0},
		"a number of 11 bytes":  append([]byte{1 << 3}, bytes.Repeat([]byte{0xff}, 11)...),
		"a length beyond all":   append([]byte{1<<3 | 2}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		"a group never ended":   {1<<3 | 3},
		"the end of no group":   {1<<3 | 4},
		"groups that interlock": {1<<3 | 3, 2<<3 | 3, 1<<3 | 4},
	} {
		if got, err := each(b); !errors.Is(err, wire.ErrMalformed) || len(got) != 0 {
			t.Errorf("%s: read %v, %v, want ErrMalformed", name, got, err)
		}
	}
}

// TestFail keeps the first fault and says of which field it is.
func TestFail(t *testing.T) {
	r := wire.Read(wire.AppendUint(wire.AppendUint(nil, 6, 1), 7, 1))
	r.Next()
	r.Fail(io.ErrNoProgress)
	r.Fail(io.ErrShortWrite)
	if r.Next() || !errors.Is(r.Err(), io.ErrNoProgress) || r.Err().Error() != "field 6: "+io.ErrNoProgress.Error() {
		t.Errorf("after a fault at field 6: %v", r.Err())
	}
	err := wire.Each(wire.AppendUint(wire.AppendUint(nil, 1, 1), 2, 1), func(num wire.Number, _ uint64, _ []byte) error {
		if num != 1 {
			t.Errorf("field %d was read after an error", num)
		}
		return io.ErrNoProgress
	})
	if err != io.ErrNoProgress {
		t.Errorf("Each returned %v, want the function's own error", err)
	}
}

// FuzzEach reads anything: what reads is written again as it was understood, and reads
// the same.
func FuzzEach(f *testing.F) {
	f.Add(wire.AppendBytes(wire.AppendUint(nil, 1, 300), 2, []byte("text")))
	f.Add([]byte{1<<3 | 3, 2 << 3, 1, 1<<3 | 4})
	f.Add([]byte{1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.Read(b)
		var again []byte
		var want []field
		for r.Next() {
			switch r.Type {
			case protowire.VarintType:
				again = wire.AppendNumber(again, r.Num, r.Uint)
			case protowire.BytesType:
				if len(r.Bytes) > len(b) {
					t.Fatalf("%d bytes of a message of %d", len(r.Bytes), len(b))
				}
				again = wire.AppendBytes(again, r.Num, r.Bytes)
			default:
				continue
			}
			want = append(want, field{r.Num, r.Uint, string(r.Bytes)})
		}
		seen, err := each(b)
		if (err == nil) != (r.Err() == nil) || !reflect.DeepEqual(seen, want) {
			t.Fatalf("Each read %v, %v, a Reader %v, %v", seen, err, want, r.Err())
		}
		if got, err := each(again); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v became %v, %v", want, got, err)
		}
	})
}
