package logstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt trusts its file: it maps it into memory and follows page numbers, and it
// checks the tree on a goroutine of its own, where neither a panic nor a fault
// can be caught. So the structure of the file is checked here first, with plain
// reads, before bbolt sees it. The layout is that of bbolt's file format 2, in
// the byte order of the machine.
const (
	pageHead = 16 // id 8, flags 2, count 2, overflow 4
	elemSize = 16 // of a branch and of a leaf element alike
	metaSize = 64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = 0xffffffffffffffff
	bucketFlag  = 0x01 // of a leaf element: the value is a bucket
	bucketHead  = 16   // root 8, sequence 8

	minPage  = 1 << 10
	maxPage  = 1 << 24
	maxDepth = 32
)

// item is a key and the place of its value in the file.
type item struct {
	bucket string
	key    []byte
	offset int64
	size   int
}

// pageWalk checks one file.
type pageWalk struct {
	r        io.ReaderAt
	pageSize int64
	pages    uint64 // the high-water mark: pages from here on are not in use
	seen     []uint64
	visit    func(item)
}

// walkPages checks the structure of the bbolt file r of size bytes and calls
// visit for each key of each top-level bucket, in order. The item is only valid
// during the call. An empty file is in order: bbolt is about to lay it out.
func walkPages(r io.ReaderAt, size int64, visit func(item)) error {
	if size == 0 {
		return nil
	}
	w := &pageWalk{r: r, visit: visit}
	meta, err := w.readMetas(size)
	if err != nil {
		return err
	}
	w.seen = make([]uint64, w.pages/64+1)
	if err := w.checkFreelist(meta.freelist); err != nil {
		return err
	}
	return w.page(meta.root, span{}, "", 0)
}

type metaPage struct{ root, freelist, pages, txid uint64 }

// readMetas reads both meta pages. bbolt makes do with one of the two and so
// forgets the newest transaction when that one's meta page is damaged: a vote or
// an acknowledged entry would be silently undone. A meta page lies within one
// sector, which a power cut leaves old or new, so a broken one is damage.
func (w *pageWalk) readMetas(size int64) (metaPage, error) {
	first, err := w.readMeta(0, 0)
	if err != nil {
		return metaPage{}, err
	}
	second, err := w.readMeta(1, w.pageSize)
	if err != nil {
		return metaPage{}, err
	}
	newest := first
	if second.txid > first.txid {
		newest = second
	}
	w.pages = newest.pages
	if w.pages < 3 || w.pages > uint64(size/w.pageSize) {
		return metaPage{}, fmt.Errorf("it is cut off: %d pages of %d bytes are in use and the file has %d bytes", w.pages, w.pageSize, size)
	}
	return newest, nil
}

func (w *pageWalk) readMeta(id uint64, offset int64) (metaPage, error) {
	var buf [pageHead + metaSize]byte
	if _, err := w.r.ReadAt(buf[:], offset); err != nil {
		return metaPage{}, fmt.Errorf("meta page %d: %w", id, err)
	}
	ne := binary.NativeEndian
	m := buf[pageHead:]
	h := fnv.New64a()
	h.Write(m[:metaSize-8])
	size := int64(ne.Uint32(m[8:]))
	switch {
	case ne.Uint64(buf[:]) != id || ne.Uint16(buf[8:]) != flagMeta,
		ne.Uint32(m) != boltMagic || ne.Uint32(m[4:]) != boltVersion:
		return metaPage{}, fmt.Errorf("page %d is no meta page", id)
	case h.Sum64() != ne.Uint64(m[metaSize-8:]):
		return metaPage{}, fmt.Errorf("the checksum of meta page %d does not match", id)
	case size < minPage || size > maxPage || size&(size-1) != 0:
		return metaPage{}, fmt.Errorf("meta page %d names a page size of %d", id, size)
	}
	w.pageSize = size
	return metaPage{
		root: ne.Uint64(m[16:]), freelist: ne.Uint64(m[32:]),
		pages: ne.Uint64(m[40:]), txid: ne.Uint64(m[48:]),
	}, nil
}

// checkFreelist accepts what a Store leaves behind: no list of free pages, or
// the empty one of a file that was just laid out. A list that is believed
// although it is wrong has bbolt write over pages in use.
func (w *pageWalk) checkFreelist(id uint64) error {
	if id == noFreelist {
		return nil
	}
	flags, count, overflow, err := w.head(id)
	if err != nil {
		return err
	}
	if flags != flagFreelist || count != 0 || overflow != 0 {
		return fmt.Errorf("page %d is not the empty list of free pages", id)
	}
	return w.mark(id, 0)
}

// head reads the head of page id and checks that it is where it says it is.
func (w *pageWalk) head(id uint64) (flags, count uint16, overflow uint32, err error) {
	if id < 2 || id >= w.pages {
		return 0, 0, 0, fmt.Errorf("page %d is referred to and does not exist", id)
	}
	var buf [pageHead]byte
	if _, err := w.r.ReadAt(buf[:], int64(id)*w.pageSize); err != nil {
		return 0, 0, 0, fmt.Errorf("page %d: %w", id, err)
	}
	ne := binary.NativeEndian
	if got := ne.Uint64(buf[:]); got != id {
		return 0, 0, 0, fmt.Errorf("page %d says it is page %d", id, got)
	}
	return ne.Uint16(buf[8:]), ne.Uint16(buf[10:]), ne.Uint32(buf[12:]), nil
}

// mark notes that page id and the pages it runs on over are in use, once.
func (w *pageWalk) mark(id uint64, overflow uint32) error {
	if uint64(overflow) >= w.pages-id {
		return fmt.Errorf("page %d runs over the end", id)
	}
	for p := id; p <= id+uint64(overflow); p++ {
		if w.seen[p/64]&(1<<(p%64)) != 0 {
			return fmt.Errorf("page %d is referred to twice", p)
		}
		w.seen[p/64] |= 1 << (p % 64)
	}
	return nil
}

// span is the range in which the keys of a subtree lie; nil is no bound.
type span struct{ from, to []byte }

// page checks the subtree under page id. bucket is "" within the root.
func (w *pageWalk) page(id uint64, keys span, bucket string, depth int) error {
	flags, count, overflow, err := w.head(id)
	if err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("page %d lies too deep", id)
	}
	if err := w.mark(id, overflow); err != nil {
		return err
	}
	offset := int64(id) * w.pageSize
	buf := make([]byte, (int64(overflow)+1)*w.pageSize)
	if _, err := w.r.ReadAt(buf, offset); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	switch flags {
	case flagBranch:
		err = w.branch(buf, int(count), keys, bucket, depth)
	case flagLeaf:
		err = w.leaf(buf, int(count), offset, keys, bucket, depth)
	default:
		err = fmt.Errorf("it is neither branch nor leaf")
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (w *pageWalk) branch(buf []byte, count int, keys span, bucket string, depth int) error {
	if count == 0 || pageHead+count*elemSize > len(buf) {
		return fmt.Errorf("it cannot have %d children", count)
	}
	ne := binary.NativeEndian
	firsts, children := make([][]byte, count), make([]uint64, count)
	for i := range count {
		at := pageHead + i*elemSize
		key, err := cut(buf, int64(at)+int64(ne.Uint32(buf[at:])), int64(ne.Uint32(buf[at+4:])))
		if err != nil {
			return err
		}
		if i > 0 {
			err = inOrder(firsts[i-1], key, keys)
		} else {
			err = inOrder(nil, key, keys)
		}
		if err != nil {
			return err
		}
		firsts[i], children[i] = key, ne.Uint64(buf[at+8:])
	}
	for i, child := range children {
		within := span{from: firsts[i], to: keys.to}
		if i+1 < count {
			within.to = firsts[i+1]
		}
		if err := w.page(child, within, bucket, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *pageWalk) leaf(buf []byte, count int, offset int64, keys span, bucket string, depth int) error {
	if pageHead+count*elemSize > len(buf) {
		return fmt.Errorf("it cannot have %d keys", count)
	}
	ne := binary.NativeEndian
	var prev []byte
	for i := range count {
		at := pageHead + i*elemSize
		flags, pos := ne.Uint32(buf[at:]), int64(ne.Uint32(buf[at+4:]))
		ksize, vsize := int64(ne.Uint32(buf[at+8:])), int64(ne.Uint32(buf[at+12:]))
		key, err := cut(buf, int64(at)+pos, ksize)
		if err != nil {
			return err
		}
		val, err := cut(buf, int64(at)+pos+ksize, vsize)
		if err != nil {
			return err
		}
		if err := inOrder(prev, key, keys); err != nil {
			return err
		}
		prev = key
		valueAt := offset + int64(at) + pos + ksize
		switch {
		case flags == bucketFlag && bucket == "":
			if err := w.bucket(val, valueAt, string(key), depth); err != nil {
				return fmt.Errorf("bucket %q: %w", key, err)
			}
		case flags == 0 && bucket != "":
			w.visit(item{bucket: bucket, key: key, offset: valueAt, size: len(val)})
		default:
			return fmt.Errorf("key %q has flags %#x where they do not belong", key, flags)
		}
	}
	return nil
}

// bucket checks a bucket of the root: a tree of its own or, when it is small, a
// leaf within the value.
func (w *pageWalk) bucket(val []byte, offset int64, name string, depth int) error {
	if len(val) < bucketHead || name == "" {
		return fmt.Errorf("its head is cut off")
	}
	ne := binary.NativeEndian
	if root := ne.Uint64(val); root != 0 {
		return w.page(root, span{}, name, depth+1)
	}
	inline := val[bucketHead:]
	if len(inline) < pageHead || ne.Uint16(inline[8:]) != flagLeaf {
		return fmt.Errorf("its inline page is no leaf")
	}
	return w.leaf(inline, int(ne.Uint16(inline[10:])), offset+bucketHead, span{}, name, depth+1)
}

// inOrder checks a key against the one before it on its page (nil: none) and
// the span of the page.
func inOrder(prev, key []byte, keys span) error {
	switch {
	case prev != nil && bytes.Compare(prev, key) >= 0,
		keys.from != nil && bytes.Compare(key, keys.from) < 0,
		keys.to != nil && bytes.Compare(key, keys.to) >= 0:
		return fmt.Errorf("key %x is out of order", key[:min(len(key), 16)])
	}
	return nil
}

func cut(buf []byte, from, size int64) ([]byte, error) {
	if from < pageHead || from+size > int64(len(buf)) {
		return nil, fmt.Errorf("a key or value lies outside")
	}
	return buf[from : from+size], nil
}
