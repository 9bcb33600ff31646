package logstore

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Faults makes the disk under a Store fail, for tests. The zero value, and nil,
// do nothing. Its methods may be called at any time from any goroutine.
type Faults struct {
	mu    sync.Mutex // guards what follows
	err   error
	hang  chan struct{} // closed by Release
	delay time.Duration
	bad   map[uint64]bool
}

// FailNext makes the next write fail with err, without anything being written.
func (f *Faults) FailNext(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Hang makes every write that begins from now on hang until Release or until the
// store is closed.
func (f *Faults) Hang() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hang == nil {
		f.hang = make(chan struct{})
	}
}

// Release ends Hang. A write that hung carries on, unless the store was given up
// meanwhile.
func (f *Faults) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hang != nil {
		close(f.hang)
		f.hang = nil
	}
}

// Delay makes every write take d longer.
func (f *Faults) Delay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// BadRead makes the entry of that index read back damaged from now on.
func (f *Faults) BadRead(index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bad == nil {
		f.bad = make(map[uint64]bool)
	}
	f.bad[index] = true
}

// spoil is called by a Store with each entry it has read.
func (f *Faults) spoil(l *raft.Log) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bad[l.Index] {
		l.Term ^= 1
	}
}

// before is called by a Store ahead of each write.
func (f *Faults) before(closed <-chan struct{}) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	hang, delay, err := f.hang, f.delay, f.err
	f.err = nil
	f.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-closed:
		}
	}
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-closed:
		}
	}
	return err
}

// FlipByte damages the stored entry of that index in the file at path, the way a
// failing disk would: one byte in the middle of it is inverted. The file may be
// open in a Store. For tests.
func FlipByte(path string, index uint64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	at := int64(-1)
	err = walkPages(f, info.Size(), func(it item) {
		if it.bucket == bucketLogs && len(it.key) == 8 && binary.BigEndian.Uint64(it.key) == index {
			at = it.offset + int64(it.size/2)
		}
	})
	if err != nil {
		return fmt.Errorf("looking for index %d: %w", index, err)
	}
	if at < 0 {
		return fmt.Errorf("index %d is not in %s", index, path)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 0xff
	_, err = f.WriteAt(b[:], at)
	return err
}
