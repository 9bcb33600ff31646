package logstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// progressEvery is how many entries are read between two calls of progress.
const progressEvery = 1024

// Verify reads every entry and every stable value that the file held when it was
// opened, and returns an *ExitError around a *CorruptError for the first that is
// not what was written. It is for the time before raft starts; it does not call
// Fatal. progress, which may be nil, is called from time to time and at the end.
//
// A gap in the indexes is no damage: an installed snapshot leaves one. See
// Reaches.
func (s *Store) Verify(ctx context.Context, progress func(done, total uint64)) error {
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	var done uint64
	for _, r := range s.found.runs {
		for index := r.from; ; index++ {
			if err := s.verifyEntry(index); err != nil {
				return err
			}
			if done++; done%progressEvery == 0 {
				progress(done, s.found.entries)
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("verifying the raft log: %w", err)
				}
			}
			if index == r.to {
				break
			}
		}
	}
	for _, key := range s.found.stable {
		if _, err := s.readValue(key); err != nil {
			return s.verifyFailed(err)
		}
	}
	progress(done, s.found.entries)
	return nil
}

func (s *Store) verifyEntry(index uint64) error {
	var log raft.Log
	err := s.read(index, &log)
	if errors.Is(err, raft.ErrLogNotFound) {
		err = &CorruptError{Path: s.path, Index: index, Reason: "the entry is there and cannot be found"}
	}
	if err != nil {
		return s.verifyFailed(err)
	}
	return nil
}

func (s *Store) verifyFailed(err error) error {
	if isCorrupt(err) {
		s.metrics.corrupt.Inc()
		return &ExitError{Code: ExitCorrupt, Err: err}
	}
	return &ExitError{Code: ExitIO, Err: fmt.Errorf("verifying the raft log: %w", err)}
}

// Reaches reports whether the state restored from a snapshot at that raft index
// (0: no snapshot) can go on with the log, as it was when it was opened, to its
// end. If an entry is missing it returns an *ExitError around a *CorruptError
// that names the first one. With it a node chooses the snapshot to fall back on
// when the newest does not read.
func (s *Store) Reaches(snapshot uint64) error {
	last := s.found.last()
	if last <= snapshot {
		return nil
	}
	for _, r := range s.found.runs {
		if r.to <= snapshot {
			continue
		}
		missing := snapshot + 1
		if r.from <= missing {
			if r.to == last {
				return nil
			}
			missing = r.to + 1
		}
		return &ExitError{Code: ExitCorrupt, Err: &CorruptError{
			Path: s.path, Index: missing,
			Reason: fmt.Sprintf("the entry is missing between a snapshot at %d and the end of the log at %d", snapshot, last),
		}}
	}
	return nil
}
