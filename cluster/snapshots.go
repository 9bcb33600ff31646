package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/cluster/logstore"
)

// reachingSnapshots keeps raft, while it starts, from going back to a snapshot that
// the log does not go on from: raft takes the newest that reads back, and would
// panic over the gap.
type reachingSnapshots struct {
	*raft.FileSnapshotStore
	store   *logstore.Store
	started atomic.Bool
	startup *startup
	failed  func(error) // called when a snapshot could not be written
}

// Open implements raft.SnapshotStore.
func (s *reachingSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.FileSnapshotStore.Open(id)
	if err != nil || s.started.Load() {
		return meta, r, err
	}
	if err := s.store.Reaches(meta.Index); err != nil {
		r.Close()
		return nil, nil, fmt.Errorf("the log does not go on from snapshot %s: %w", id, err)
	}
	return meta, &countedSnapshot{ReadCloser: r, startup: s.startup, total: meta.Size}, nil
}

// Create implements raft.SnapshotStore.
func (s *reachingSnapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, c, configIndex, trans)
	if err != nil {
		s.failed(err)
		return nil, err
	}
	return &toldSink{SnapshotSink: sink, failed: s.failed}, nil
}

var errSnapshotCut = errors.New("it was given up in the middle")

// toldSink tells of a snapshot that does not come to its end, once.
type toldSink struct {
	raft.SnapshotSink
	failed func(error)
	over   bool  // raft writes a snapshot on one goroutine
	err    error // of the first write that failed
}

func (s *toldSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	if s.err == nil {
		s.err = err
	}
	return n, err
}

// Close implements io.Closer.
func (s *toldSink) Close() error {
	err := s.SnapshotSink.Close()
	if err != nil && !s.over {
		s.failed(err)
	}
	s.over = true
	return err
}

// Cancel implements raft.SnapshotSink.
func (s *toldSink) Cancel() error {
	if !s.over {
		s.failed(cmp.Or(s.err, errSnapshotCut))
	}
	s.over = true
	return s.SnapshotSink.Cancel()
}
