package cluster

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// startupTell is how often the log says how far a start is that takes long.
const startupTell = 5 * time.Second

// startup is how far a node is on its way from its start to its first answer.
type startup struct {
	logger *slog.Logger
	began  time.Time
	last   atomic.Uint64 // the last raft index of the log as it was found
	over   atomic.Bool   // reads are answered: nothing more is to be said

	mu   sync.Mutex
	now  muster.Startup // guarded by mu: until raft has started
	told time.Time      // guarded by mu
}

// at notes how far it is, and says so in the log every now and then.
func (s *startup) at(now muster.Startup) {
	s.mu.Lock()
	if s.told.IsZero() {
		s.told = time.Now()
	}
	tell := time.Since(s.told) >= startupTell
	if tell {
		s.told = time.Now()
	}
	s.now = now
	s.mu.Unlock()
	if tell {
		s.logger.Info("still starting", "stage", now.Stage, "done", now.Done, "total", now.Total, "unit", now.Unit)
	}
}

func (s *startup) stage() muster.Startup {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Startup is what the node is busy with until it answers reads; zero from then on.
func (n *Node) Startup() muster.Startup {
	if _, ready := n.Freshness(); ready {
		if !n.startup.over.Swap(true) {
			n.logger.Info("caught up, reads are answered", "node", n.id, "index", n.fsm.Applied(), "duration", time.Since(n.startup.began))
		}
		return muster.Startup{}
	}
	if n.raft.Load() == nil {
		return n.startup.stage()
	}
	applied := n.fsm.Applied()
	total := max(n.startup.last.Load(), n.fresh.target())
	if leader, _ := n.raftLeader(); leader == "" {
		return muster.Startup{Stage: "waiting for a leader"}
	}
	return muster.Startup{Stage: "applying the log", Done: applied, Total: total, Unit: "entries"}
}

// replaying is called for every batch that is applied, until the node answers reads.
func (n *Node) replaying() {
	if !n.startup.over.Load() {
		if now := n.Startup(); now.Stage != "" {
			n.startup.at(now)
		}
	}
}

// target is the highest index that has to be applied for the state to be current; 0
// where no leader has said one.
func (f *freshness) target() (index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pending {
		index = max(index, p.index)
	}
	return index
}

// countedSnapshot notes how much of a snapshot the state machine has read.
type countedSnapshot struct {
	io.ReadCloser
	startup *startup
	done    uint64
	total   int64
}

func (r *countedSnapshot) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.done += uint64(n)
	r.startup.at(muster.Startup{Stage: "reading the snapshot", Done: r.done, Total: uint64(max(r.total, 0)), Unit: "bytes"})
	return n, err
}
