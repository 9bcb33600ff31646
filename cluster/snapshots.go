package cluster

import (
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
	return meta, r, nil
}
