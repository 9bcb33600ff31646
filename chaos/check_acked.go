package chaos

import (
	"slices"
	"sort"
	"strings"

	"github.com/muster-registry/muster"
)

// checkAcked holds the answers of all writes against the log: what was acknowledged
// is there, once, at the index that was told; what was refused is not; and nothing is
// there that nobody asked for.
func (c *checks) checkAcked() {
	asked := map[string]bool{}
	for _, r := range c.writes {
		asked[r.Op+" "+keyOf(r.Service, r.Instance)] = true
		events := c.log.of(r)
		rec := []int64{r.ID}
		if len(events) > 1 {
			c.violate("acked", rec, "%s %s of %s was applied %d times: %+v", r.Kind, r.Op, keyOf(r.Service, r.Instance), len(events), events)
			continue
		}
		switch {
		case r.Outcome == Fail && len(events) > 0:
			c.violate("acked", rec, "%s %s of %s was refused (%d %s %s), and applied: %+v", r.Kind, r.Op, keyOf(r.Service, r.Instance), r.Status, r.Code, r.Error, events[0])
		case r.Outcome == OK && r.Kind == KindRegister:
			c.checkRegistered(r, events)
		case r.Outcome == OK:
			if len(events) == 1 && (events[0].Index != r.Index || events[0].Type != string(muster.EventDeregistered)) {
				c.violate("acked", rec, "deregistering %s was acknowledged at %d, and is %+v", keyOf(r.Service, r.Instance), r.Index, events[0])
			}
		}
	}
	for key, events := range c.log.keys {
		for _, e := range events {
			ours := strings.HasPrefix(key, "reg-") || strings.HasPrefix(key, "pulse-")
			if ours && !asked[e.Reason+" "+key] {
				c.violate("log", nil, "nobody asked for %+v", e)
			}
		}
	}
}

func (c *checks) checkRegistered(r *Record, events []Event) {
	rec, key := []int64{r.ID}, keyOf(r.Service, r.Instance)
	if r.Index == 0 {
		c.violate("acked", rec, "%s was registered, and no index told", key)
		return
	}
	if r.Changed != (len(events) == 1) {
		c.violate("acked", rec, "registering %s (%s) was acknowledged at %d, changed %t; the log has %d events of it", key, r.Op, r.Index, r.Changed, len(events))
		return
	}
	var cell Cell
	if len(r.Cells) == 1 {
		cell = r.Cells[0]
		if cell.Value != r.Value {
			c.violate("acked", rec, "registering %s with %s was answered with %s", key, r.Value, cell.Value)
		}
	}
	if !r.Changed {
		return // what was there is a matter of checkState and checkLinear
	}
	e := events[0]
	if e.Index != r.Index || r.Created != (e.Type == string(muster.EventRegistered)) {
		c.violate("acked", rec, "registering %s was acknowledged at %d, created %t; the log has %+v", key, r.Index, r.Created, e)
	}
	if look := c.log.looks[e].hash; look != 0 && cell.Hash != 0 && look != cell.Hash {
		c.violate("acked", rec, "registering %s was answered with another instance than streams show", key)
	}
}

// checkOrder asks that the order of the log is that of time: what began after
// something else was acknowledged has a higher index.
func (c *checks) checkOrder() {
	var writes []*Record
	for _, r := range c.writes {
		if r.Index > 0 && r.Outcome != Unknown {
			writes = append(writes, r)
		}
	}
	ended := slices.Clone(writes)
	slices.SortFunc(ended, func(a, b *Record) int { return int(a.Return - b.Return) })
	slices.SortFunc(writes, func(a, b *Record) int { return int(a.Call - b.Call) })
	var top *Record
	n := 0
	for _, r := range writes {
		for ; n < len(ended) && ended[n].Return < r.Call; n++ {
			if top == nil || ended[n].Index > top.Index {
				top = ended[n]
			}
		}
		if top != nil && r.Index <= top.Index {
			c.violate("order", []int64{top.ID, r.ID}, "%s %s got index %d, though %d was acknowledged before it began", r.Kind, r.Op, r.Index, top.Index)
		}
	}
}

// changes are the acknowledged changes of a service by the time of their answer, each
// with the highest index so far.
type changes struct {
	at    []int64
	index []uint64
	from  []int64 // the record
}

// before is the highest index that was acknowledged before t.
func (s *changes) before(t int64) (index uint64, record int64) {
	if s == nil {
		return 0, 0
	}
	n := sort.Search(len(s.at), func(n int) bool { return s.at[n] >= t })
	if n == 0 {
		return 0, 0
	}
	return s.index[n-1], s.from[n-1]
}

func (c *checks) changes() map[string]*changes {
	by := map[string]*changes{}
	ended := slices.Clone(c.writes)
	slices.SortFunc(ended, func(a, b *Record) int { return int(a.Return - b.Return) })
	for _, r := range ended {
		if r.Outcome != OK || r.Kind == KindRegister && !r.Changed || r.Kind == KindDeregister && len(c.log.of(r)) == 0 {
			continue
		}
		s := by[r.Service]
		if s == nil {
			s = &changes{}
			by[r.Service] = s
		}
		index, from := r.Index, r.ID
		if n := len(s.index); n > 0 && s.index[n-1] > index {
			index, from = s.index[n-1], s.from[n-1]
		}
		s.at, s.index, s.from = append(s.at, r.Return), append(s.index, index), append(s.from, from)
	}
	return by
}

// staleUnit is how finely an answer tells its age, rounded down.
const staleUnit = 1e6

// checkFresh asks that no read is older than it may be: a linearizable one not than
// what was acknowledged before it began, a local one not than the age it tells, one
// with min_index not than that, and none that goes on from what its client saw
// goes back.
func (c *checks) checkFresh() {
	changed := c.changes()
	type seenBy struct{ client, service string }
	seen := map[seenBy]*Record{}
	for _, r := range c.reads {
		if r.Service == "" {
			continue
		}
		bound := r.Call
		if !r.Linearizable {
			bound -= (r.Stale + 1) * staleUnit
		}
		unknown := r.Code == string(muster.CodeUnknownService)
		need, from := changed[r.Service].before(bound)
		rec := []int64{from, r.ID}
		if need > r.Index && !(unknown && c.log.restoredBetween(need, c.log.end())) {
			c.violate("fresh", rec, "a read of %s (linearizable %t, %d ms old as it says) shows %d, though %d was acknowledged before it began", r.Service, r.Linearizable, r.Stale, r.Index, need)
		}
		if unknown && need > 0 && !c.log.restoredBetween(need, c.log.end()) {
			c.violate("fresh", rec, "a read does not know of %s, which was changed at %d before", r.Service, need)
		}
		if r.MaxStale > 0 && r.Stale > r.MaxStale {
			c.violate("fresh", []int64{r.ID}, "a read with max_stale %d ms says it is %d ms old", r.MaxStale, r.Stale)
		}
		if r.Kind == KindPoll && r.Index < r.After && !unknown {
			c.violate("fresh", []int64{r.ID}, "a poll of %s from %d was answered with %d", r.Service, r.After, r.Index)
		}
		if r.MinIndex == 0 || unknown {
			continue
		}
		if need := c.log.lastOf(r.Service, r.MinIndex); len(c.log.services[r.Service]) > 0 && c.log.services[r.Service][0] <= r.MinIndex && r.Index < need {
			c.violate("fresh", []int64{r.ID}, "a read of %s with min_index %d shows %d, though it changed at %d", r.Service, r.MinIndex, r.Index, need)
		}
		k := seenBy{r.Client, r.Service}
		if before := seen[k]; before != nil && before.Index > r.Index && before.Index <= r.MinIndex {
			c.violate("fresh", []int64{before.ID, r.ID}, "%s saw %s at %d, and with min_index %d at %d", r.Client, r.Service, before.Index, r.MinIndex, r.Index)
		}
		seen[k] = r
	}
}
