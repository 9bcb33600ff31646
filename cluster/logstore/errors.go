package logstore

import (
	"errors"
	"fmt"
)

// The exit codes a Store ends its node with.
const (
	// ExitCorrupt: what is on the disk is not what was written.
	ExitCorrupt = 65
	// ExitIO: a write or an fsync failed, or did not come back.
	ExitIO = 74
	// ExitInUse: another process holds the file.
	ExitInUse = 78
)

var (
	// ErrInUse is in the chain of Open's error while another process holds the
	// file.
	ErrInUse = errors.New("in use by another process")
	// ErrHung is in the chain of the failure the watchdog declares.
	ErrHung = errors.New("a write does not return")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("log store closed")
)

// ExitError is a failure that is meant to end the process with a code.
type ExitError struct {
	Code int
	Err  error
}

// Error renders the cause.
func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode returns the code the process should exit with.
func (e *ExitError) ExitCode() int { return e.Code }

// CorruptError says that the file does not hold what was written to it.
type CorruptError struct {
	Path string
	// Index is the raft index of the damaged or missing entry; 0 if the damage
	// is not in one entry.
	Index  uint64
	Reason string
}

// Error names the file, the index and what is wrong.
func (e *CorruptError) Error() string {
	if e.Index == 0 {
		return fmt.Sprintf("raft log %s is damaged: %s", e.Path, e.Reason)
	}
	return fmt.Sprintf("raft log %s is damaged at index %d: %s", e.Path, e.Index, e.Reason)
}

func isCorrupt(err error) bool {
	_, ok := errors.AsType[*CorruptError](err)
	return ok
}
