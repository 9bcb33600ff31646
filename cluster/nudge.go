package cluster

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster/cluster/peer"
)

// nudger tells followers at once what was committed. raft tells them with the next
// entries or, where none follow, up to twice its CommitTimeout later; a nudge is
// the same message sent when there is something to say: an AppendEntries without
// entries, whose previous entry is the committed one.
//
// It is safe because it is true whenever it arrives. Only the leader of a term
// sends AppendEntries in it, so what the transport saw go out says whose term it
// is; the entry named is of that term and committed; and a follower whose log holds
// an entry of that index and term holds all before it as the leader does. One that
// does not is not nudged: it would refuse, and say so in its log.
type nudger struct {
	last func() uint64 // the index of the newest entry of the log
	sent prometheus.Counter
	wake chan struct{}

	mu        sync.Mutex
	committed logID                        // guarded by mu: the newest entry known to be committed
	followers map[raft.ServerID]*following // guarded by mu
}

// logID names an entry.
type logID struct{ index, term uint64 }

// following is what the leader of a term knows of a follower.
type following struct {
	target raft.ServerAddress
	sent   raft.AppendEntriesRequest // the latest that succeeded, without its entries
	match  uint64                    // up to which its log is the leader's
	told   uint64                    // the commit index it was last told
	busy   bool                      // a nudge is under way
}

func newNudger(last func() uint64, sent prometheus.Counter) *nudger {
	return &nudger{last: last, sent: sent, wake: make(chan struct{}, 1), followers: make(map[raft.ServerID]*following)}
}

// appended notes that a follower has taken what args says.
func (g *nudger) appended(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest) {
	if args.PrevLogEntry == 0 && len(args.Entries) == 0 {
		return // a heartbeat proves nothing of the log
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.followers[id]
	if f == nil {
		f = &following{}
		g.followers[id] = f
	}
	if f.sent.Term != args.Term {
		f.match, f.told = 0, 0
	}
	f.target, f.sent = target, *args
	f.sent.Entries = nil
	f.match = max(f.match, args.PrevLogEntry+uint64(len(args.Entries)))
	f.told = max(f.told, min(args.LeaderCommitIndex, f.match))
	if g.due(f) {
		poke(g.wake)
	}
}

// commit notes that an entry was committed.
func (g *nudger) commit(index, term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.committed = logID{index, term}
	for _, f := range g.followers {
		if g.due(f) {
			poke(g.wake)
			return
		}
	}
}

// due reports whether f is to be nudged. While later entries are on their way they
// will tell it, or be nudged for themselves. The caller holds mu.
func (g *nudger) due(f *following) bool {
	c := g.committed
	return !f.busy && f.sent.Term == c.term && f.match >= c.index && f.told < c.index && g.last() <= c.index
}

// lastIndex is the index of the newest entry of the log; as high as can be while
// raft is starting.
func (n *Node) lastIndex() uint64 {
	if r := n.raft.Load(); r != nil {
		return r.LastIndex()
	}
	return math.MaxUint64
}

// run sends nudges until ctx ends, at most one at a time to each follower.
func (g *nudger) run(ctx context.Context, t *peer.Transport) {
	var sending sync.WaitGroup
	defer sending.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.wake:
		}
		g.mu.Lock()
		for id, f := range g.followers {
			if !g.due(f) {
				continue
			}
			f.busy, f.told = true, g.committed.index
			target, args := f.target, f.sent
			args.PrevLogEntry, args.PrevLogTerm, args.LeaderCommitIndex = g.committed.index, g.committed.term, g.committed.index
			sending.Go(func() {
				g.sent.Inc()
				// One that fails is made good by raft's own next message.
				_ = t.TellCommit(id, target, &args)
				g.mu.Lock()
				f.busy = false
				again := g.due(f)
				g.mu.Unlock()
				if again {
					poke(g.wake)
				}
			})
		}
		g.mu.Unlock()
	}
}

// tappedFSM tells the nudger of the entries that raft hands over, all of which are
// committed.
type tappedFSM struct {
	StateMachine
	nudges *nudger
	fail   func(error) // ends the node
	tell   func()      // that the start goes on
}

// Restore implements raft.FSM. A snapshot that only a newer version can read is no
// reason to look for an older one, or to be sent it again.
func (f tappedFSM) Restore(r io.ReadCloser) error {
	err := f.StateMachine.Restore(r)
	if _, coded := errors.AsType[interface {
		error
		ExitCode() int
	}](err); coded {
		f.fail(err)
	}
	return err
}

// ApplyBatch implements raft.BatchingFSM.
func (f tappedFSM) ApplyBatch(logs []*raft.Log) []any {
	if n := len(logs); n > 0 {
		f.nudges.commit(logs[n-1].Index, logs[n-1].Term)
	}
	responses := f.StateMachine.ApplyBatch(logs)
	f.tell()
	return responses
}
