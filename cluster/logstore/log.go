package logstore

import (
	"errors"

	"github.com/hashicorp/raft"
)

// deleteChunk is how many entries compaction removes in one transaction: an
// append waits for the transaction under way, not for the whole compaction.
const deleteChunk = 4096

// FirstIndex returns the index of the first entry, 0 if there is none.
func (s *Store) FirstIndex() (uint64, error) {
	index, err := s.edge(s.db.FirstIndex)
	if err != nil {
		return 0, s.readFailed(err)
	}
	return index, nil
}

// LastIndex returns the index of the last entry, 0 if there is none.
func (s *Store) LastIndex() (uint64, error) {
	index, err := s.edge(s.db.LastIndex)
	if err != nil {
		return 0, s.readFailed(err)
	}
	return index, nil
}

func (s *Store) edge(read func() (uint64, error)) (index uint64, err error) {
	err = s.guard(func() (err error) {
		index, err = read()
		return err
	})
	return index, err
}

// GetLog reads the entry of that index into log, or returns raft.ErrLogNotFound.
func (s *Store) GetLog(index uint64, log *raft.Log) error {
	err := s.read(index, log)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	return s.readFailed(err)
}

// read is GetLog without consequences.
func (s *Store) read(index uint64, log *raft.Log) error {
	*log = raft.Log{}
	err := s.guard(func() error { return s.db.GetLog(index, log) })
	switch {
	case err == nil:
		s.cfg.Faults.spoil(log)
		if err = unsealLog(index, log); err == nil {
			return nil
		}
	case errors.Is(err, raft.ErrLogNotFound), errors.Is(err, errUnreadable), s.isClosed():
		return err
	}
	// bbolt gave a value that is no entry, or panicked over it.
	reason := err.Error()
	if corrupt, ok := errors.AsType[*CorruptError](err); ok {
		reason = corrupt.Reason
	}
	return &CorruptError{Path: s.path, Index: index, Reason: reason}
}

// StoreLog appends one entry.
func (s *Store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries, in one transaction that is on the disk when it
// returns. It neither keeps nor changes the entries.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	sealed := sealLogs(logs)
	return s.write(opAppend, func() error {
		if err := s.db.StoreLogs(sealed); err != nil {
			return err
		}
		s.metrics.appended.Add(float64(len(logs)))
		return s.noteEdges()
	})
}

// DeleteRange deletes the entries from min to max. Raft deletes for two reasons:
// to compact (the oldest entries; never the last one) and to replace a tail that
// was never committed. Compaction is held back to Config.KeepFrom and goes in
// several transactions. A tail goes in one: half of it gone would leave a hole.
func (s *Store) DeleteRange(min, max uint64) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if first == 0 || max < first || min > last {
		return nil
	}
	if min > first || max >= last {
		return s.deleteRange(min, max)
	}
	if keep := s.cfg.KeepFrom(); keep > 0 && max > keep {
		s.cfg.Logger.Debug("log compaction held back for the oldest snapshot", "asked", max, "snapshot", keep)
		max = keep
	}
	for first <= max {
		to := max
		if max-first >= deleteChunk {
			to = first + deleteChunk - 1
		}
		if err := s.deleteRange(first, to); err != nil {
			return err
		}
		// A gap that an installed snapshot left is crossed in one step.
		if first = s.first.Load(); first == 0 {
			return nil
		}
	}
	return nil
}

func (s *Store) deleteRange(min, max uint64) error {
	return s.write(opDelete, func() error {
		if err := s.db.DeleteRange(min, max); err != nil {
			return err
		}
		return s.noteEdges()
	})
}

// noteEdges keeps the first and last index for the metrics and compaction.
func (s *Store) noteEdges() error {
	first, err := s.db.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.db.LastIndex()
	if err != nil {
		return err
	}
	s.first.Store(first)
	s.last.Store(last)
	return nil
}
