package logstore

import (
	"bytes"
	"fmt"
)

// run is a range of indexes without a gap, both ends included.
type run struct{ from, to uint64 }

// inventory is what the file held when it was opened.
type inventory struct {
	runs    []run
	entries uint64
	stable  [][]byte // keys
	err     error    // a key that cannot be ours
}

func (v *inventory) add(it item) {
	switch {
	case it.bucket == bucketStable:
		v.stable = append(v.stable, bytes.Clone(it.key))
	case it.bucket != bucketLogs:
		v.err = fmt.Errorf("bucket %q is unknown", it.bucket)
	case len(it.key) != 8:
		v.err = fmt.Errorf("key %x in the log is no index", it.key)
	default:
		index := indexOf(it.key)
		v.entries++
		if n := len(v.runs); n > 0 && v.runs[n-1].to+1 == index {
			v.runs[n-1].to = index
		} else {
			v.runs = append(v.runs, run{from: index, to: index})
		}
	}
}

func (v *inventory) first() uint64 {
	if len(v.runs) == 0 {
		return 0
	}
	return v.runs[0].from
}

func (v *inventory) last() uint64 {
	if len(v.runs) == 0 {
		return 0
	}
	return v.runs[len(v.runs)-1].to
}
