package fsm

import (
	"time"

	"github.com/muster-registry/muster"
)

// Listener is told what changed. It is called on raft's goroutine, once a batch,
// after the batch's views are published, and must not block; it may read the
// FSM. What it is given is shared and must not be changed.
type Listener interface{ Applied(Changes) }

// Changes is what one batch of entries did.
type Changes struct {
	// Index is the index of the last entry of the batch; all up to it can be read.
	Index uint64
	// Entries are the entries that made events, in order.
	Entries []Entry
	// Leases are the leases that were granted, touched or ended, each once, as it
	// is at Index, in the order in which they were first touched.
	Leases []LeaseChange
	// Reset says that the whole state was replaced, by a restore or by a snapshot
	// of the leader's: forget all, and read the state anew. Entries and Leases are
	// empty then.
	Reset bool
}

// Entry is the events of one log entry.
type Entry struct {
	Index  uint64
	Events []*muster.Event
}

// LeaseRecord is a lease as its keeper wants to know it.
type LeaseRecord struct {
	ID  muster.LeaseID
	TTL time.Duration
	// Generation is the index of the last registration that touched it.
	Generation uint64
	Shared     bool
	// Suspect says that the expiry governor holds it.
	Suspect bool
	// OnExpiry is that of the instance whose own lease it is; "" for a shared one.
	OnExpiry muster.OnExpiry
	// Instances is how many hang on it, Services in which services, in order.
	Instances int
	Services  []muster.ServiceKey
}

// LeaseChange is what became of a lease.
type LeaseChange struct {
	LeaseRecord
	// Heard says that a registration or a grant touched the lease: it was heard
	// from at the moment the entry was proposed, at the latest when it is applied.
	Heard bool
	// Gone says that the lease is no more; of the record only the id is set.
	Gone bool
}

// gathered is what a batch did, for the listeners and the metrics.
type gathered struct {
	listen  bool
	events  []*muster.Event // of the entry that is being applied
	entries []Entry
	leases  []muster.LeaseID        // in the order of the first touch
	heard   map[muster.LeaseID]bool // the same leases; whether they were heard from
	dirty   []*service              // to be published
	listed  bool                    // the list of services changed
	reset   bool
	tally   *tally
}

// lease notes that a lease changed.
func (g *gathered) lease(id muster.LeaseID, heard bool) {
	if !g.listen || g.reset {
		return
	}
	before, known := g.heard[id]
	if !known {
		g.leases = append(g.leases, id)
	}
	g.heard[id] = before || heard
}

// sealEntry ends the entry of that index.
func (g *gathered) sealEntry(index uint64) {
	if len(g.events) == 0 {
		return
	}
	if !g.reset {
		g.entries = append(g.entries, Entry{Index: index, Events: g.events})
	}
	g.events = nil
}

// restart forgets what was gathered: the whole state was replaced.
func (g *gathered) restart() {
	*g = gathered{listen: g.listen, heard: emptied(g.heard), tally: g.tally, reset: true, listed: true}
}

// emptied returns an empty map: m itself, unless it has grown so large that
// clearing it over and over would cost more than a new one.
func emptied[K comparable, V any](m map[K]V) map[K]V {
	if len(m) > 256 {
		return make(map[K]V)
	}
	clear(m)
	return m
}

// drain returns what was gathered for the listeners and starts anew.
func (g *gathered) drain(index uint64, table *leaseTable) Changes {
	c := Changes{Index: index, Reset: g.reset}
	if !g.reset {
		c.Entries = g.entries
		if len(g.leases) > 0 {
			c.Leases = make([]LeaseChange, 0, len(g.leases))
		}
		for _, id := range g.leases {
			if l := table.find(id); l != nil {
				c.Leases = append(c.Leases, LeaseChange{LeaseRecord: l.record(), Heard: g.heard[id]})
			} else {
				c.Leases = append(c.Leases, LeaseChange{LeaseRecord: LeaseRecord{ID: id}, Gone: true})
			}
		}
	}
	g.heard = emptied(g.heard)
	g.entries, g.leases, g.reset, g.listed = nil, g.leases[:0], false, false
	return c
}
