package logstore

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// A seal is appended to the extensions of a stored entry and to a stable value:
// the CRC32C, then one byte that tells the format of the seal.
const (
	sealFormat = 1
	sealLen    = 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errNoSeal   = errors.New("it carries no checksum")
	errMismatch = errors.New("its checksum does not match")
)

// sealLogs returns copies of logs whose extensions end in a seal. Data is shared
// and the originals are left alone: raft and its cache go on using them.
func sealLogs(logs []*raft.Log) []*raft.Log {
	copies := make([]raft.Log, len(logs))
	out := make([]*raft.Log, len(logs))
	size := 0
	for _, l := range logs {
		size += len(l.Extensions) + sealLen
	}
	buf := make([]byte, 0, size)
	for i, l := range logs {
		copies[i] = *l
		start := len(buf)
		buf = appendSeal(append(buf, l.Extensions...), sumLog(l))
		copies[i].Extensions = buf[start:len(buf):len(buf)]
		out[i] = &copies[i]
	}
	return out
}

// unsealLog strips and checks the seal of an entry that was read under index.
func unsealLog(index uint64, l *raft.Log) error {
	ext, sum, err := splitSeal(l.Extensions)
	if err != nil {
		return err
	}
	if len(ext) == 0 {
		ext = nil
	}
	l.Extensions = ext
	if l.Index != index || sumLog(l) != sum {
		return errMismatch
	}
	return nil
}

// sumLog covers every field that is stored. AppendedAt means nothing to raft,
// but covering it makes every flipped bit of an entry show.
func sumLog(l *raft.Log) uint32 {
	var head [57]byte
	head[0] = sealFormat
	_, zone := l.AppendedAt.Zone()
	for i, v := range [...]uint64{
		l.Index, l.Term, uint64(l.Type), uint64(len(l.Data)),
		uint64(l.AppendedAt.Unix()), uint64(l.AppendedAt.Nanosecond()), uint64(zone),
	} {
		binary.BigEndian.PutUint64(head[1+8*i:], v)
	}
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, l.Data)
	return crc32.Update(sum, castagnoli, l.Extensions)
}

// sealValue returns val with a seal over its key and itself: a value that turns
// up under another key is as wrong as a flipped one.
func sealValue(key, val []byte) []byte {
	return appendSeal(append(make([]byte, 0, len(val)+sealLen), val...), sumValue(key, val))
}

func unsealValue(key, sealed []byte) ([]byte, error) {
	val, sum, err := splitSeal(sealed)
	if err != nil {
		return nil, err
	}
	if sumValue(key, val) != sum {
		return nil, errMismatch
	}
	return val, nil
}

func sumValue(key, val []byte) uint32 {
	var head [9]byte
	head[0] = sealFormat
	binary.BigEndian.PutUint64(head[1:], uint64(len(key)))
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, key)
	return crc32.Update(sum, castagnoli, val)
}

func appendSeal(b []byte, sum uint32) []byte {
	return append(binary.BigEndian.AppendUint32(b, sum), sealFormat)
}

func splitSeal(b []byte) (val []byte, sum uint32, err error) {
	n := len(b) - sealLen
	if n < 0 || b[len(b)-1] != sealFormat {
		return nil, 0, errNoSeal
	}
	return b[:n:n], binary.BigEndian.Uint32(b[n:]), nil
}
