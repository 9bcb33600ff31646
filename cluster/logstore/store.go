package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"

	"github.com/muster-registry/muster/durable"
	"github.com/muster-registry/muster/fault"
)

// The buckets raft-boltdb keeps.
const (
	bucketLogs   = "logs"
	bucketStable = "conf"
)

const (
	lockTimeout  = time.Second
	lockRetry    = 50 * time.Millisecond
	closeTimeout = 2 * time.Second
)

// Config is what a Store is made from. Every field may be left empty.
type Config struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// KeepFrom returns the raft index of the oldest retained snapshot, 0 if
	// there is none. Compaction never deletes entries above it, so that each
	// retained snapshot reaches the log. Called from any goroutine.
	KeepFrom func() uint64
	// Fatal is called once, from any goroutine, with an *ExitError when the
	// store has given up. It must return soon and must not call the store.
	Fatal func(error)
	// HangLimit is how long a write may run before the store gives up; 5 s if 0.
	HangLimit time.Duration
	// Faults is the seam for tests; nil in production.
	Faults *Faults
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.KeepFrom == nil {
		c.KeepFrom = func() uint64 { return 0 }
	}
	if c.Fatal == nil {
		c.Fatal = func(error) {}
	}
	if c.HangLimit <= 0 {
		c.HangLimit = defaultHangLimit
	}
	return c
}

// Store is raft's log and stable store.
//
// It gives up, calling Config.Fatal once, when a write or fsync fails or hangs
// (ExitIO) and when something does not read back as it was written
// (ExitCorrupt). From then on nothing is written: a write that failed may still
// be in the page cache, where a second fsync would report it as safe.
//
// Raft panics when it cannot read an entry or keep its term, on a goroutine of
// its own and so before the node could end in good order. Once Run has been
// called, a failing GetLog, Get, GetUint64, Set, SetUint64, FirstIndex or
// LastIndex therefore does not return: it holds its goroutine until Close and
// then ends it with runtime.Goexit. Appending and deleting do return their
// error; raft copes with that. So a node that is told to stop closes the Store
// before it waits for raft. Before Run, and for a Store that was closed without
// having given up, all errors are returned: raft.NewRaft, which reads and writes
// on its caller's goroutine, is called before Run and may panic on them. Err then
// tells why.
type Store struct {
	path    string
	cfg     Config
	db      *raftboltdb.BoltStore
	file    *os.File // bbolt's own descriptor, which carries the lock
	metrics *metrics

	found       inventory // what Open found
	first, last atomic.Uint64

	writer   chan struct{} // holds a token while a write runs
	inflight inflight
	armed    atomic.Bool // Run has been called
	failure  atomic.Pointer[ExitError]

	closeOnce sync.Once
	closed    chan struct{}
	closeErr  error
}

var (
	_ raft.LogStore    = (*Store)(nil)
	_ raft.StableStore = (*Store)(nil)
)

// Open opens or creates the file at path. It checks the structure of the file,
// not yet its entries. Its error is an *ExitError where the file is in use,
// damaged, or cannot be written.
func Open(path string, cfg Config) (*Store, error) {
	s := &Store{
		path: path, cfg: cfg.withDefaults(),
		writer: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	s.metrics = newMetrics()
	err := s.guard(func() (err error) {
		s.db, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{
			Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
			OpenFile: s.openFile,
		}, NoSync: fault.Is(fault.NoFsync)})
		return err
	})
	if err != nil {
		if s.file != nil {
			s.file.Close() // bbolt leaves it open when it panics
		}
		return nil, s.openError(err)
	}
	s.first.Store(s.found.first())
	s.last.Store(s.found.last())
	if err := s.metrics.register(s.cfg.Registerer, s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openError gives err the exit code it deserves.
func (s *Store) openError(err error) error {
	if exit, ok := errors.AsType[*ExitError](err); ok {
		return exit
	}
	if isCorrupt(err) {
		s.metrics.corrupt.Inc()
		return &ExitError{Code: ExitCorrupt, Err: err}
	}
	return &ExitError{Code: ExitIO, Err: fmt.Errorf("opening the raft log: %w", err)}
}

// openFile opens the file for bbolt. It takes bbolt's lock first, so that the
// check of the pages does not read what another process is writing; bbolt then
// locks the same descriptor again, which succeeds.
func (s *Store) openFile(path string, flag int, mode os.FileMode) (*os.File, error) {
	_, err := os.Stat(path)
	isNew := errors.Is(err, os.ErrNotExist)
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	if err := s.prepareFile(f, isNew); err != nil {
		f.Close()
		return nil, err
	}
	s.file = f
	return f, nil
}

func (s *Store) prepareFile(f *os.File, isNew bool) error {
	if err := lockFile(f); err != nil {
		return err
	}
	if isNew {
		// A file whose name is lost in a power cut would come back as an empty
		// log: a member that has forgotten its votes.
		if err := durable.SyncDir(filepath.Dir(f.Name())); err != nil {
			return err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s.found = inventory{}
	if err := walkPages(f, info.Size(), s.found.add); err != nil {
		return &CorruptError{Path: s.path, Reason: err.Error()}
	}
	if s.found.err != nil {
		return &CorruptError{Path: s.path, Reason: s.found.err.Error()}
	}
	return nil
}

func lockFile(f *os.File) error {
	deadline := time.NewTimer(lockTimeout)
	defer deadline.Stop()
	retry := time.NewTicker(lockRetry)
	defer retry.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		select {
		case <-retry.C:
		case <-deadline.C:
			return &ExitError{Code: ExitInUse, Err: fmt.Errorf("raft log %s is %w", f.Name(), ErrInUse)}
		}
	}
}

// Err returns the *ExitError with which the store has given up, nil if it has not.
func (s *Store) Err() error {
	if e := s.failure.Load(); e != nil {
		return e
	}
	return nil
}

// Close closes the file and gives up its lock. Goroutines that are held because
// of a failure end. It waits at most two seconds for reads and writes under way;
// if one of them is stuck in the kernel the file stays open.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		done := make(chan error, 1)
		go func() {
			s.writer <- struct{}{} // the last write has ended, and no other begins
			done <- s.db.Close()
		}()
		limit := time.NewTimer(closeTimeout)
		defer limit.Stop()
		select {
		case s.closeErr = <-done:
		case <-limit.C:
			s.closeErr = fmt.Errorf("closing the raft log %s: %w", s.path, ErrHung)
		}
	})
	return s.closeErr
}

// errUnreadable is a page that the disk does not give back.
var errUnreadable = errors.New("a page cannot be read")

// guard runs fn, which may read the mapped file, and turns bbolt's panics into a
// *CorruptError and a fault into errUnreadable.
func (s *Store) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			err = fmt.Errorf("%s: %w: %v", s.path, errUnreadable, r)
		default:
			err = &CorruptError{Path: s.path, Reason: fmt.Sprint(r)}
		}
	}()
	return fn()
}

// fail gives up: once, and for good. It returns the first failure.
func (s *Store) fail(e *ExitError) error {
	if !s.failure.CompareAndSwap(nil, e) {
		return s.failure.Load()
	}
	if e.Code == ExitCorrupt {
		s.metrics.corrupt.Inc()
	}
	s.cfg.Logger.Error("raft log failed, this node must stop", "exit_code", e.Code, "err", e.Err)
	s.cfg.Fatal(e)
	return e
}

// park ends the calling goroutine if the store has given up while raft runs on
// it, after holding it until Close; see Store.
func (s *Store) park() {
	if s.failure.Load() == nil || !s.armed.Load() {
		return
	}
	<-s.closed
	runtime.Goexit()
}

// readFailed handles the failure of a read.
func (s *Store) readFailed(err error) error {
	switch {
	case s.isClosed() && s.failure.Load() == nil:
		return ErrClosed
	case isCorrupt(err):
		err = s.fail(&ExitError{Code: ExitCorrupt, Err: err})
	default:
		err = s.fail(&ExitError{Code: ExitIO, Err: fmt.Errorf("reading the raft log: %w", err)})
	}
	s.park()
	return err
}

func (s *Store) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// write runs fn as the only write there is, watched and measured. A failure is
// final.
func (s *Store) write(op string, fn func() error) error {
	end := s.inflight.begin(time.Now())
	defer end()
	select {
	case <-s.closed:
		return s.stopped()
	case s.writer <- struct{}{}:
	}
	defer func() { <-s.writer }()
	if err := s.stopped(); err != nil {
		return err
	}
	start := time.Now()
	err := s.cfg.Faults.before(s.closed)
	if fault.On && err == nil {
		err = obey(fault.DiskFile(), s.closed)
	}
	// A write that comes back after it was given up must not happen any more.
	if stopped := s.stopped(); stopped != nil {
		return stopped
	}
	if err == nil {
		err = s.guard(fn)
	}
	s.metrics.write.WithLabelValues(op).Observe(time.Since(start).Seconds())
	switch {
	case isCorrupt(err):
		return s.fail(&ExitError{Code: ExitCorrupt, Err: err})
	case err != nil:
		return s.fail(&ExitError{Code: ExitIO, Err: fmt.Errorf("writing the raft log %s (%s): %w", s.path, op, err)})
	}
	return s.Err()
}

// stopped returns why no write may begin, nil if one may.
func (s *Store) stopped() error {
	if err := s.Err(); err != nil {
		return err
	}
	if s.isClosed() {
		return ErrClosed
	}
	return nil
}

func indexOf(key []byte) uint64 { return binary.BigEndian.Uint64(key) }
