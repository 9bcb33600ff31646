package chaos

import (
	"fmt"
	"maps"
	"slices"
	"sort"
)

// ledger is the committed log as the journals of all nodes tell it: the reference.
// Streams add what the instances looked like.
type ledger struct {
	entries map[uint64][]Event
	looks   map[Event]look // by bare event: the instance after it
	spans   [][2]uint64    // (from, to]: pages that were read whole

	// Set by seal.
	order    []uint64
	services map[string][]uint64 // indexes with events of it
	restores []Event
	ops      map[string][]Event // by op and key
	keys     map[string][]Event // by key, in order
}

// look is what an instance looked like.
type look struct {
	hash  uint64
	value string
}

func newLedger() *ledger { return &ledger{entries: map[uint64][]Event{}, looks: map[Event]look{}} }

func keyOf(service, id string) string { return service + "/" + id }

// page takes a page of some node's journal. What it tells of an entry is what every
// other tells.
func (l *ledger) page(r *Record) error {
	events, from := r.Events, r.After
	if r.Truncated {
		// The page may begin in the middle of an entry.
		if len(events) == 0 {
			return nil
		}
		from = events[0].Index
		for len(events) > 0 && events[0].Index == from {
			events = events[1:]
		}
	}
	if r.Index > from {
		l.spans = append(l.spans, [2]uint64{from, r.Index})
	}
	last := from
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Index == events[0].Index {
			n++
		}
		at, entry := events[0].Index, events[:n]
		events = events[n:]
		if at <= last || at > r.Index {
			return fmt.Errorf("the journal of node %d has %d after %d, up to %d", r.Node, at, last, r.Index)
		}
		last = at
		if known, ok := l.entries[at]; !ok {
			l.entries[at] = entry
		} else if !slices.Equal(known, entry) {
			return fmt.Errorf("the journal of node %d has %+v, another %+v", r.Node, entry, known)
		}
	}
	return nil
}

// seal ends the collection: the methods below are called after it.
func (l *ledger) seal() {
	l.order = slices.Sorted(maps.Keys(l.entries))
	l.services, l.ops, l.keys = map[string][]uint64{}, map[string][]Event{}, map[string][]Event{}
	for _, at := range l.order {
		for _, e := range l.entries[at] {
			if e.Service == "" {
				if e.Cause == causeRestored {
					l.restores = append(l.restores, e)
				}
				continue
			}
			if of := l.services[e.Service]; len(of) == 0 || of[len(of)-1] != at {
				l.services[e.Service] = append(of, at)
			}
			key := keyOf(e.Service, e.ID)
			l.keys[key] = append(l.keys[key], e)
			if e.Reason != "" {
				l.ops[e.Reason+" "+key] = append(l.ops[e.Reason+" "+key], e)
			}
		}
	}
}

// causeRestored is the cause of the event that a restore leaves.
const causeRestored = "restored"

// gaps are the indexes of which no page tells.
func (l *ledger) gaps() (gaps [][2]uint64) {
	spans := slices.Clone(l.spans)
	slices.SortFunc(spans, func(a, b [2]uint64) int {
		switch {
		case a[0] < b[0]:
			return -1
		case a[0] > b[0]:
			return 1
		}
		return 0
	})
	reached := uint64(0)
	for _, s := range spans {
		if s[0] > reached {
			gaps = append(gaps, [2]uint64{reached, s[0]})
		}
		reached = max(reached, s[1])
	}
	return gaps
}

// end is the index up to which the log is known.
func (l *ledger) end() (end uint64) {
	for _, s := range l.spans {
		end = max(end, s[1])
	}
	return end
}

// of are the events of one write, by its name and what it was done to.
func (l *ledger) of(r *Record) []Event { return l.ops[r.Op+" "+keyOf(r.Service, r.Instance)] }

// following is the next entry after index in which a stream that carries sel has to
// be told something: its events, those of each service together.
func (l *ledger) following(index uint64, sel *Select) (next uint64, events []Event) {
	n := sort.Search(len(l.order), func(n int) bool { return l.order[n] > index })
	for _, next := range l.order[n:] {
		var order []string
		by := map[string][]Event{}
		for _, e := range l.entries[next] {
			if e.Service == "" || !sel.match(e.Service) {
				continue
			}
			if by[e.Service] == nil {
				order = append(order, e.Service)
			}
			by[e.Service] = append(by[e.Service], e)
		}
		for _, s := range order {
			events = append(events, by[s]...)
		}
		if len(events) > 0 {
			return next, events
		}
	}
	return 0, nil
}

// learn notes what instances looked like after events, as a stream told it; false:
// another stream told something else.
func (l *ledger) learn(events []Event) bool {
	for _, e := range events {
		if e.Hash == 0 {
			continue
		}
		is := look{e.Hash, e.Value}
		if known, ok := l.looks[e.bare()]; ok && known != is {
			return false
		}
		l.looks[e.bare()] = is
	}
	return true
}

// restoredBetween reports whether a backup was restored after from, up to to.
func (l *ledger) restoredBetween(from, to uint64) bool {
	return slices.ContainsFunc(l.restores, func(e Event) bool { return e.Index > from && e.Index <= to })
}

// restoredBy reports whether a backup was restored after index, before a time (Unix ms).
func (l *ledger) restoredBy(index uint64, ms int64) bool {
	return slices.ContainsFunc(l.restores, func(e Event) bool { return e.Index > index && e.Time <= ms })
}

// lastOf is the index of the last entry up to at that changed a service; a restore
// changes all.
func (l *ledger) lastOf(service string, at uint64) (last uint64) {
	of := l.services[service]
	if n := sort.Search(len(of), func(n int) bool { return of[n] > at }); n > 0 {
		last = of[n-1]
	}
	for _, e := range l.restores {
		if e.Index <= at {
			last = max(last, e.Index)
		}
	}
	return last
}
