package client

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// How long a node is set aside after it failed: from the first to the last, twice
// as long each time.
const (
	minAside = 500 * time.Millisecond
	maxAside = 30 * time.Second
)

// node is one node of the registry.
type node struct {
	base string // "http://10.0.0.1:7400"

	// guarded by nodes.mu
	failures int
	until    time.Time // set aside until then
}

// nodes are the nodes of the registry and how they fare. A client stays with one
// node until that fails: connections are kept, and reads seldom meet a node that is
// behind. Which is the first is chance, so that many clients spread.
//
// It is safe for concurrent use.
type nodes struct {
	log *slog.Logger

	mu      sync.Mutex
	all     []*node
	current *node // guarded by mu
}

func newNodes(bases []string, log *slog.Logger) *nodes {
	n := &nodes{log: log}
	for _, b := range bases {
		n.all = append(n.all, &node{base: b})
	}
	n.current = n.all[rand.IntN(len(n.all))]
	return n
}

// order returns all nodes in the order in which to try them: the one that is in
// use, those that did not fail lately, those that did, and last those that are set
// aside, the one nearest to its return first. None is left out: where all have
// failed, trying tells more than refusing.
func (n *nodes) order(now time.Time) []*node {
	n.mu.Lock()
	defer n.mu.Unlock()
	var well, back, aside []*node
	for _, k := range rand.Perm(len(n.all)) {
		switch nd := n.all[k]; {
		case now.Before(nd.until):
			aside = append(aside, nd)
		case nd == n.current:
			well = append([]*node{nd}, well...)
		case nd.failures == 0:
			well = append(well, nd)
		default:
			back = append(back, nd)
		}
	}
	for i := range aside { // few: selection is enough
		for j := i + 1; j < len(aside); j++ {
			if aside[j].until.Before(aside[i].until) {
				aside[i], aside[j] = aside[j], aside[i]
			}
		}
	}
	return append(append(well, back...), aside...)
}

// another returns a node that is not but and is not set aside; nil where there is
// none, and then how long until there may be one.
func (n *nodes) another(but *node, now time.Time) (nd *node, next time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next = maxAside
	for _, k := range rand.Perm(len(n.all)) {
		if o := n.all[k]; o != but {
			left := o.until.Sub(now)
			if left <= 0 {
				return o, 0
			}
			next = min(next, left)
		}
	}
	return nil, next
}

// failed sets nd aside, for at least atLeast.
func (n *nodes) failed(nd *node, atLeast time.Duration, why error) {
	now := time.Now()
	n.mu.Lock()
	// What was under way when it failed first does not count again.
	first := !now.Before(nd.until)
	if first {
		nd.failures++
		d := min(minAside<<min(nd.failures-1, 10), maxAside)
		d = max(d/2+rand.N(d/2+1), min(atLeast, maxAside))
		nd.until = now.Add(d)
	}
	if n.current == nd {
		n.current = nil
		for _, o := range n.all {
			if !now.Before(o.until) && (n.current == nil || o.failures < n.current.failures || o.failures == n.current.failures && rand.IntN(2) == 0) {
				n.current = o
			}
		}
	}
	failures := nd.failures
	n.mu.Unlock()
	if first && failures == 1 {
		n.log.Warn("registry node set aside", "node", nd.base, "err", why)
	}
}

// served notes that nd answered.
func (n *nodes) served(nd *node) {
	n.mu.Lock()
	failures := nd.failures
	nd.failures, nd.until = 0, time.Time{}
	if n.current == nil {
		n.current = nd
	}
	n.mu.Unlock()
	if failures > 0 {
		n.log.Info("registry node answers again", "node", nd.base)
	}
}
