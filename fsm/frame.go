package fsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// A snapshot is a preamble (magic, major and minor version) and blocks. A block
// is its type, the length of its payload, the payload (records, each with its
// length), and a CRC32C over all of that. The types come in the order of their
// numbers. The high bit of a type says that a reader that does not know it may
// skip it; another unknown type, or a higher major version, it refuses.
const (
	magic        = "MUSTERFS"
	formatMajor  = 1
	formatMinor  = 0
	preambleSize = len(magic) + 4

	blockTarget = 64 << 10 // a block is closed when it has grown to this
	maxBlock    = 1 << 20  // and never larger than this
)

type blockType byte

// The types of block.
const (
	blockHeader       blockType = 1
	blockLeases       blockType = 2
	blockServices     blockType = 3
	blockGoneServices blockType = 4
	blockTombstones   blockType = 5
	blockJournal      blockType = 6
	blockMembers      blockType = 7
	blockRemoved      blockType = 8
	blockStaging      blockType = 9
	blockSettings     blockType = 10
	blockTrailer      blockType = 0x7f

	blockOptional blockType = 0x80
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errNotSnapshot = errors.New("not a Muster snapshot")
	errTruncated   = errors.New("snapshot is cut short")
	errChecksum    = errors.New("block fails its checksum")
	errBlockSize   = errors.New("block is larger than a block may be")
	errBlockOrder  = errors.New("block is out of order")
)

// frameWriter writes blocks of records. The first error stays in err.
type frameWriter struct {
	w     io.Writer
	typ   blockType
	block []byte
	count map[blockType]uint64 // records written
	size  int64
	err   error
}

func newFrameWriter(w io.Writer) *frameWriter {
	fw := &frameWriter{w: w, count: make(map[blockType]uint64)}
	b := append(make([]byte, 0, preambleSize), magic...)
	b = binary.LittleEndian.AppendUint16(b, formatMajor)
	fw.write(binary.LittleEndian.AppendUint16(b, formatMinor))
	return fw
}

func (w *frameWriter) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.size += int64(n)
	if err != nil {
		w.err = fmt.Errorf("writing a snapshot: %w", err)
	}
}

const blockHead = 5 // type and length

// record appends one record of that type.
func (w *frameWriter) record(t blockType, fill func([]byte) []byte) {
	if w.err != nil {
		return
	}
	if w.typ != t {
		w.flush()
		w.typ = t
	}
	if len(w.block) == 0 {
		w.block = append(w.block, byte(t), 0, 0, 0, 0)
	}
	w.block = appendMessage(w.block, 1, fill)
	w.count[t]++
	if len(w.block) >= blockTarget {
		w.flush()
	}
}

func (w *frameWriter) flush() {
	if len(w.block) == 0 {
		return
	}
	size := len(w.block) - blockHead
	if size > maxBlock {
		w.err = fmt.Errorf("writing a snapshot: %w", errBlockSize)
		return
	}
	binary.LittleEndian.PutUint32(w.block[1:], uint32(size))
	w.block = binary.LittleEndian.AppendUint32(w.block, crc32.Checksum(w.block, castagnoli))
	w.write(w.block)
	w.block = w.block[:0]
}

// frameReader reads what frameWriter writes, and trusts none of it.
type frameReader struct {
	r     *bufio.Reader
	last  blockType
	buf   []byte
	count map[blockType]uint64
}

func newFrameReader(r io.Reader) (*frameReader, error) {
	fr := &frameReader{r: bufio.NewReaderSize(r, blockTarget), count: make(map[blockType]uint64)}
	b := make([]byte, preambleSize)
	if _, err := io.ReadFull(fr.r, b); err != nil {
		return nil, cut(err)
	}
	if string(b[:len(magic)]) != magic {
		return nil, errNotSnapshot
	}
	if major := binary.LittleEndian.Uint16(b[len(magic):]); major != formatMajor {
		return nil, &UpgradeError{fmt.Sprintf("snapshot of format %d", major)}
	}
	return fr, nil
}

// next reads a block and returns its type and its records. They are valid until
// the next call.
func (r *frameReader) next() (blockType, decoder, error) {
	head := make([]byte, blockHead)
	if _, err := io.ReadFull(r.r, head); err != nil {
		return 0, decoder{}, cut(err)
	}
	t, size := blockType(head[0]), binary.LittleEndian.Uint32(head[1:])
	if size > maxBlock {
		return 0, decoder{}, errBlockSize
	}
	if cap(r.buf) < int(size)+4 {
		r.buf = make([]byte, int(size)+4)
	}
	b := r.buf[:int(size)+4]
	if _, err := io.ReadFull(r.r, b); err != nil {
		return 0, decoder{}, cut(err)
	}
	payload := b[:size]
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
	if sum != binary.LittleEndian.Uint32(b[size:]) {
		return 0, decoder{}, fmt.Errorf("block of type %d: %w", t, errChecksum)
	}
	if t&blockOptional == 0 {
		if t < r.last || t == r.last && (t == blockHeader || t == blockTrailer) {
			return 0, decoder{}, errBlockOrder
		}
		r.last = t
	}
	return t, decode(payload), nil
}

// record moves d to the next record of a block and opens it.
func (r *frameReader) record(t blockType, d *decoder) (decoder, bool) {
	for d.Next() {
		if d.Num == 1 && d.Type == protowire.BytesType {
			r.count[t]++
			return decode(d.Bytes), true
		}
	}
	return decoder{}, false
}

// end refuses what follows the trailer.
func (r *frameReader) end() error {
	switch _, err := r.r.ReadByte(); {
	case err == nil:
		return errors.New("bytes follow the end of the snapshot")
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTruncated
	}
	return err
}
