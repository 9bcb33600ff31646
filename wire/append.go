package wire

import "google.golang.org/protobuf/encoding/protowire"

// AppendUint appends a number to b; 0 is what a reader finds without it, and is left
// out.
func AppendUint(b []byte, num Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return AppendNumber(b, num, v)
}

// AppendNumber appends a number to b, 0 too.
func AppendNumber(b []byte, num Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// AppendBool appends a 1 to b where v is true, else nothing.
func AppendBool(b []byte, num Number, v bool) []byte {
	return AppendUint(b, num, protowire.EncodeBool(v))
}

// AppendString appends a text to b; an empty one is left out.
func AppendString(b []byte, num Number, s string) []byte {
	if s == "" {
		return b
	}
	return AppendText(b, num, s)
}

// AppendText appends a text to b, an empty one too.
func AppendText(b []byte, num Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

// AppendBytes appends bytes to b, none too: those of a repeated field keep their
// places.
func AppendBytes(b []byte, num Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}
