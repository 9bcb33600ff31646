package httpapi

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/muster-registry/muster"
)

// compressLeast is the size of a body from which it is compressed: below it all
// of it fits into one packet either way.
const compressLeast = 1400

var (
	varyEncoding = []string{"Accept-Encoding"}
	encodingGzip = []string{"gzip"}
)

// compressors are kept, because a new one takes a megabyte.
var compressors = sync.Pool{New: func() any {
	// The fast level: JSON of many alike shrinks as well, and who watches waits.
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a good one
	return z
}}

// compressed is the body of a view as gzip, made once and shared by all who take
// it; no body where it is not worth the while.
type compressed struct {
	body   []byte
	length []string
}

func compress(v *muster.View) any {
	plain := v.JSON()
	if len(plain) < compressLeast {
		return &compressed{}
	}
	z := compressors.Get().(*gzip.Writer)
	defer compressors.Put(z)
	var b bytes.Buffer
	z.Reset(&b)
	_, _ = z.Write(plain) // into memory
	_ = z.Close()
	z.Reset(nil)
	if b.Len() >= len(plain) {
		return &compressed{}
	}
	return &compressed{bytes.Clone(b.Bytes()), []string{strconv.Itoa(b.Len())}}
}

// wantsGzip reports whether an Accept-Encoding lets gzip through (RFC 9110
// §12.5.3).
func wantsGzip(h http.Header) bool {
	asked, other := -1.0, 0.0
	for _, line := range h["Accept-Encoding"] {
		for part := range strings.SplitSeq(line, ",") {
			name, rest, _ := strings.Cut(part, ";")
			switch name = strings.TrimSpace(name); {
			case strings.EqualFold(name, "gzip"), strings.EqualFold(name, "x-gzip"):
				asked = quality(rest)
			case name == "*":
				other = quality(rest)
			}
		}
	}
	if asked >= 0 {
		return asked > 0
	}
	return other > 0
}
