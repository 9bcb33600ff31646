package lease_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/lease"
)

// sim is a cluster in memory, for a synctest bubble: keepers as they are, a
// network that can be cut, nodes that can be paused and restarted, and beneath
// them a replicated log that is right by construction: an entry is committed when
// its proposer leads in its term and reaches a majority.
type sim struct {
	t          *testing.T
	wg         sync.WaitGroup
	ctx        context.Context
	nodes      []*simNode
	switches   lease.Switches
	applyEvery time.Duration
	election   time.Duration // from the loss of a leader to the next one
	commit     time.Duration

	mu      sync.Mutex
	cut     map[[2]string]bool
	log     []simEntry
	term    uint64
	leader  *simNode // of the highest term
	end     context.CancelFunc
	how     map[muster.LeaseID]lease.Kind    // why
	gone    map[muster.LeaseID]time.Time     // when
	timers  map[muster.InstanceKey]time.Time // when a timer's decision was applied
	changes int                              // leader changes
}

type simEntry struct {
	index int
	term  uint64
	at    time.Time
	op    func(n *simNode, e *simEntry, c *lease.Changes)
}

// newSim starts a cluster of n nodes, the first of which leads.
func newSim(t *testing.T, n int, opts ...func(*sim)) *sim {
	s := &sim{
		t: t, ctx: t.Context(), applyEvery: 5 * time.Millisecond, election: time.Second, commit: 4 * time.Millisecond,
		cut: map[[2]string]bool{}, how: map[muster.LeaseID]lease.Kind{}, gone: map[muster.LeaseID]time.Time{},
		timers: map[muster.InstanceKey]time.Time{},
	}
	for _, o := range opts {
		o(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.ctx = ctx
	for i := range n {
		s.nodes = append(s.nodes, &simNode{sim: s, id: fmt.Sprintf("n%d", i+1), votes: true, applying: make(chan struct{}, 1)})
	}
	for _, n := range s.nodes {
		n.start(ctx)
	}
	s.elect(s.nodes[0])
	s.wg.Go(s.watchLeader)
	t.Cleanup(func() {
		for _, n := range s.nodes {
			s.resume(n)
		}
		cancel()
		s.wg.Wait()
	})
	return s
}

// logger logs to the test.
func (s *sim) logger(n *simNode) *slog.Logger {
	return slog.New(slog.NewTextHandler(s.t.Output(), nil)).With("node", n.id)
}

// elections is how many leaders there have been.
func (s *sim) elections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

func (s *sim) quorum() int { return len(s.nodes)/2 + 1 }

func (s *sim) voters() []string {
	var ids []string
	for _, n := range s.nodes {
		ids = append(ids, n.id)
	}
	return ids
}

func (s *sim) node(id string) *simNode {
	return s.nodes[slices.IndexFunc(s.nodes, func(n *simNode) bool { return n.id == id })]
}

func (s *sim) delay() time.Duration { return 200*time.Microsecond + rand.N(800*time.Microsecond) }

// linked reports whether messages pass from a to b.
func (s *sim) linked(a, b *simNode) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.cut[[2]string{a.id, b.id}]
}

// reaches is how many running nodes n reaches both ways, itself included.
func (s *sim) reaches(n *simNode) int { return len(s.reached(n)) }

func (s *sim) reached(n *simNode) (out []*simNode) {
	for _, p := range s.nodes {
		p.mu.Lock()
		runs := p.paused == nil
		p.mu.Unlock()
		if runs && (p == n || s.linked(n, p) && s.linked(p, n)) {
			out = append(out, p)
		}
	}
	return out
}

// isolate cuts a node off from all others; heal undoes all cuts.
func (s *sim) isolate(n *simNode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.nodes {
		if p != n {
			s.cut[[2]string{n.id, p.id}], s.cut[[2]string{p.id, n.id}] = true, true
		}
	}
}

func (s *sim) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.cut)
}

func (s *sim) pause(n *simNode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.paused == nil {
		n.paused = make(chan struct{})
	}
}

func (s *sim) resume(n *simNode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.paused != nil {
		close(n.paused)
		n.paused = nil
	}
}

// restart kills a node's process and starts it again with an empty memory. The
// old process's answers are lost with it.
func (s *sim) restart(n *simNode) {
	s.mu.Lock()
	if s.leader == n && s.end != nil {
		s.end()
		s.leader, s.end = nil, nil
	}
	s.mu.Unlock()
	n.stop()
	n.start(s.ctx)
}

func (s *sim) leaderSeenBy(n *simNode) string {
	s.mu.Lock()
	l := s.leader
	s.mu.Unlock()
	if l == nil || l != n && !s.linked(n, l) {
		return ""
	}
	return l.id
}

// entry returns the entry n is to apply next.
func (s *sim) entry(n *simNode) (simEntry, bool) {
	n.mu.Lock()
	next := n.applied
	n.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if next >= len(s.log) {
		return simEntry{}, false
	}
	return s.log[next], true
}

// propose commits an operation if n leads in term and reaches a majority; else
// nobody learns more than that.
func (s *sim) propose(ctx context.Context, n *simNode, term uint64, op func(*simNode, *simEntry, *lease.Changes)) (uint64, error) {
	if !wait(ctx, s.commit) || s.reaches(n) < s.quorum() {
		<-ctx.Done()
		return 0, muster.Errorf(muster.CodeOutcomeUnknown, "no majority")
	}
	s.mu.Lock()
	if term != s.term || s.leader != n {
		s.mu.Unlock()
		return 0, muster.Errorf(muster.CodeNoLeader, "deposed")
	}
	e := simEntry{index: len(s.log) + 1, term: term, at: time.Now(), op: op}
	s.log = append(s.log, e)
	s.mu.Unlock()
	n.catchUp()
	return uint64(e.index), nil
}

// elect makes n the leader of a new term, if it reaches a majority.
func (s *sim) elect(n *simNode) bool {
	reached := s.reached(n)
	if len(reached) < s.quorum() {
		return false
	}
	s.mu.Lock()
	if s.end != nil && s.leader != nil {
		// The deposed leader learns of it a little later, once it runs again.
		old, end := s.leader, s.end
		s.wg.Go(func() { old.gate(); wait(s.ctx, rand.N(200*time.Millisecond)); end() })
	}
	s.term++
	term := s.term
	ctx, cancel := context.WithCancel(s.ctx)
	s.leader, s.end = n, cancel
	s.changes++
	s.mu.Unlock()
	for _, p := range reached { // the votes
		p.mu.Lock()
		p.term = term
		p.mu.Unlock()
	}
	s.wg.Go(func() {
		_, err := s.propose(ctx, n, term, func(*simNode, *simEntry, *lease.Changes) {}) // the epoch
		if err == nil {
			n.keeper.Lead(ctx, term)
		}
	})
	// The others hear of the term from its first entries.
	s.wg.Go(func() {
		for wait(ctx, 20*time.Millisecond) {
			for _, p := range s.reached(n) {
				p.mu.Lock()
				p.term = max(p.term, term)
				p.mu.Unlock()
			}
		}
	})
	return true
}

// watchLeader elects another leader when the present one has lost its majority for
// as long as an election takes.
func (s *sim) watchLeader() {
	var lost time.Duration
	const every = 50 * time.Millisecond
	for wait(s.ctx, every) {
		s.mu.Lock()
		l := s.leader
		s.mu.Unlock()
		if l != nil {
			if s.reaches(l) >= s.quorum() && s.runs(l) {
				lost = 0
				continue
			}
		}
		if lost += every; lost < s.election {
			continue
		}
		for _, i := range rand.Perm(len(s.nodes)) {
			if n := s.nodes[i]; s.runs(n) && s.elect(n) {
				lost = 0
				break
			}
		}
	}
}

func (s *sim) runs(n *simNode) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.paused == nil
}

func (s *sim) removed(id muster.LeaseID, k lease.Kind, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.gone[id]; !ok {
		s.gone[id], s.how[id] = at, k
	}
}

func (s *sim) timerEnded(k muster.InstanceKey, _ lease.Kind, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.timers[k]; !ok {
		s.timers[k] = at
	}
}

// ended returns when a lease was removed.
func (s *sim) ended(id muster.LeaseID) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.gone[id]
	return at, ok
}
