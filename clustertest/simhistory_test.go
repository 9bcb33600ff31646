package clustertest_test

import (
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

// history is what an observer outside, who sees everything, has written down of a
// run. From it follows how long a lease may have lived at most.
type history struct {
	nodes     int
	marks     []time.Time // a majority confirmed the leader, who had gathered
	takeovers []takeover
	gathered  map[uint64]bool // terms
	births    [][]time.Time   // by node: its table began anew
	down      []spans         // by node
	trouble   []spans         // by node: it was stopped, stalled or slow
	cut       map[link]*spans
	stuck     ranges // nothing could be committed, though the leader was confirmed
	expiries  map[muster.InstanceKey][]expiry
}

type takeover struct {
	at     time.Time
	leader int
}

type expiry struct {
	index uint64
	at    time.Time
}

// span is a time in which something lasted; to is zero while it lasts.
type span struct{ from, to time.Time }

// spans may be nested: depth counts the causes that last.
type spans struct {
	all   []span
	depth int
}

func (s *spans) begin(now time.Time) {
	if s.depth++; s.depth == 1 {
		s.all = append(s.all, span{from: now})
	}
}

func (s *spans) end(now time.Time) {
	if s.depth == 0 {
		return
	}
	if s.depth--; s.depth == 0 {
		s.all[len(s.all)-1].to = now
	}
}

// ranges are spans that are known once they have ended.
type ranges []span

func (r *ranges) add(from, to time.Time) { *r = append(*r, span{from, to}) }

// touches reports whether any of it was in [from, to].
func (s *spans) touches(from, to time.Time) bool {
	for _, sp := range s.all {
		if !sp.from.After(to) && (sp.to.IsZero() || !sp.to.Before(from)) {
			return true
		}
	}
	return false
}

func newHistory(nodes int) history {
	return history{
		nodes: nodes, gathered: map[uint64]bool{}, births: make([][]time.Time, nodes), down: make([]spans, nodes), trouble: make([]spans, nodes),
		cut: map[link]*spans{}, expiries: map[muster.InstanceKey][]expiry{},
	}
}

func (h *history) reset(node int, now time.Time) { h.births[node] = append(h.births[node], now) }

func (h *history) mark(now time.Time) {
	if n := len(h.marks); n == 0 || now.After(h.marks[n-1]) {
		h.marks = append(h.marks, now)
	}
}

func (h *history) tookOver(leader int, term uint64, now time.Time) {
	h.gathered[term] = true
	h.takeovers = append(h.takeovers, takeover{now, leader})
	h.mark(now)
}

// expired notes the end of an instance's lease; false: it was known.
func (h *history) expired(k muster.InstanceKey, index uint64, now time.Time) bool {
	es := h.expiries[k]
	if slices.ContainsFunc(es, func(e expiry) bool { return e.index == index }) {
		return false
	}
	h.expiries[k] = append(es, expiry{index, now})
	return true
}

// ended returns when a lease ended that was granted at that index.
func (h *history) ended(k muster.InstanceKey, granted uint64) (time.Time, bool) {
	first := expiry{index: 1<<64 - 1}
	for _, e := range h.expiries[k] {
		if e.index > granted && e.index < first.index {
			first = e
		}
	}
	return first.at, !first.at.IsZero()
}

func (h *history) cutting(l link) *spans {
	if h.cut[l] == nil {
		h.cut[l] = &spans{}
	}
	return h.cut[l]
}

const (
	// simGap: confirmations further apart mean that nobody could lead meanwhile.
	simGap = 200 * time.Millisecond
	// lateMessage is how long a message may be on its way, both hops together.
	lateMessage = 30 * time.Millisecond
	// gatherTime is the longest time a gathering takes.
	gatherTime = 600 * time.Millisecond
	// The bounds: with a stable leader, and what a failover adds to the outage.
	lateStable   = 300 * time.Millisecond
	lateFailover = 200 * time.Millisecond
	// lateUnseen is added where something happened: what lasts shorter than simGap is
	// no outage in this history, and one to the keeper. TestSimulationScripts, where
	// one thing happens at a time, does without.
	lateUnseen = simGap
)

// clean reports whether a majority of old tables must have answered a takeover:
// nodes that ran all the time, at full speed, could be reached, and whose tables
// are older than the TTL and the slack. Outages are taken out of all that a table
// knows, its beginning included, so they do not make it older.
func (h *history) clean(t takeover, ttl time.Duration, outages []span) bool {
	from := t.at.Add(-gatherTime)
	n := 0
	for i := range h.nodes {
		if h.down[i].touches(from, t.at) || h.trouble[i].touches(from, t.at) {
			continue
		}
		if i != t.leader && (h.cutting(link{i, t.leader}).touches(from, t.at) || h.cutting(link{t.leader, i}).touches(from, t.at)) {
			continue
		}
		born := time.Time{}
		for _, b := range h.births[i] {
			if !b.After(t.at) && b.After(born) {
				born = b
			}
		}
		age := from.Sub(born) - overlap(outages, born, from) - overlap(h.trouble[i].all, born, from)
		if age >= ttl+ttl/100+200*time.Millisecond {
			n++
		}
	}
	return n > h.nodes/2
}

// overlap is how much of [from, to] the spans cover.
func overlap(all []span, from, to time.Time) (sum time.Duration) {
	for _, s := range all {
		end := s.to
		if end.IsZero() || end.After(to) {
			end = to
		}
		sum += max(0, end.Sub(later(s.from, from)))
	}
	return sum
}

// A renewal counts from when it is merged, and a table takes its own stall for
// one of everybody. So what a stopped node knows is younger than it is, by as long
// as it was stopped since the heartbeat: of use to whoever takes over later. And
// a deposed leader that was stopped may still tell the present one of a renewal.

// stopped is the longest time any node was stopped between sent and t.
func (h *history) stopped(sent, t time.Time) (longest time.Duration) {
	for i := range h.trouble {
		if d := overlap(h.trouble[i].all, sent, t); d > 0 {
			longest = max(longest, d+lateMessage)
		}
	}
	return longest
}

// told is when a leader ran again who was stopped when the heartbeat was sent.
func (h *history) told(sent time.Time) (last time.Time) {
	for i := range h.trouble {
		for _, s := range h.trouble[i].all {
			led := -1
			for _, t := range h.takeovers {
				if t.at.Before(s.from) {
					led = t.leader
				}
			}
			if led == i && s.to.After(sent) && !s.from.After(sent.Add(lateMessage)) {
				last = later(last, s.to.Add(lateMessage))
			}
		}
	}
	return last
}

// outages are the times without a confirmed leader who could commit, in order.
func (h *history) outages() []span {
	var all []span
	taken := map[time.Time]bool{}
	for _, t := range h.takeovers {
		taken[t.at] = true
	}
	for i := 1; i < len(h.marks); i++ {
		if a, b := h.marks[i-1], h.marks[i]; b.Sub(a) > simGap || taken[b] {
			all = append(all, span{a, b})
		}
	}
	if len(h.marks) > 0 { // nobody led before the first, and tables are older than that
		all = append(all, span{h.births[0][0], h.marks[0]})
	}
	all = append(all, h.stuck...)
	slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
	var out []span
	for _, s := range all {
		if n := len(out); n > 0 && !s.from.After(out[n-1].to) {
			if s.to.After(out[n-1].to) {
				out[n-1].to = s.to
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// limit is until when a lease may live.
type limit struct {
	by                   time.Time
	failovers, fallbacks int  // takeovers that it lived through, and those of them that were not clean
	calm                 bool // nothing happened meanwhile
}

// latest is the time by which a lease must have ended whose owner was last heard
// from at sent: after its TTL, to which the outages are added in which it should
// have ended; or a TTL after a takeover by a leader whom no majority of old tables
// could tell how old it was.
func (h *history) latest(outages []span, sent time.Time, ttl time.Duration) (l limit) {
	deadline, slack := sent.Add(ttl), lateStable
	all, stopped := outages, time.Duration(0)
	if told := h.told(sent); !told.IsZero() {
		deadline = told.Add(ttl)
	}
	unseen := time.Duration(0)
	by := func() time.Time { return deadline.Add(slack + stopped + unseen) }
	defer func() {
		l.by = by()
		l.calm = l.failovers == 0 && l.by.Equal(sent.Add(ttl+lateStable))
	}()
	for len(outages) > 0 && !outages[0].to.After(sent) {
		outages = outages[1:]
	}
	pass := func(until time.Time) bool { // the outages that began until then
		for len(outages) > 0 && !outages[0].from.After(until) {
			o := outages[0]
			if by().Before(o.from) {
				return false
			}
			outages, unseen = outages[1:], lateUnseen
			deadline = deadline.Add(o.to.Sub(later(o.from, sent)))
		}
		return !by().Before(until)
	}
	for _, t := range h.takeovers {
		if !t.at.After(sent) {
			continue
		}
		if !pass(t.at) {
			return
		}
		l.failovers++
		slack += lateFailover
		if !h.clean(t, ttl, all) {
			l.fallbacks++
			deadline = later(deadline, t.at.Add(ttl))
		}
		stopped = max(stopped, h.stopped(sent, t.at))
	}
	pass(sent.Add(1000 * time.Hour))
	return
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
