package client

import (
	"sync"
)

// seen is how far a client has seen the registry: whatever node answers next is
// asked to be as far (min_index), so that no read goes back in time. It is safe for
// concurrent use.
type seen struct {
	mu      sync.Mutex
	cluster string // guarded by mu
	most    uint64 // guarded by mu
}

// note takes in what an answer says. Indexes compare only within one cluster.
func (s *seen) note(cluster string, index uint64) {
	if cluster == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cluster != s.cluster {
		s.cluster, s.most = cluster, 0
	}
	s.most = max(s.most, index)
}

func (s *seen) index() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}
