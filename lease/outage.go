package lease

import (
	"cmp"
	"slices"
	"time"

	"github.com/muster-registry/muster/fault"
)

// Outage is how long the registry was away: time in which no renewal could be
// acknowledged, which counts for no lease.
//
// Each leader finds the outage before its own session, and those within it in which
// its rounds found no majority, and tells them with every Renew. A table may miss
// that: its leader dies at once, or does not reach it. So what is told is the sum of
// all that leaders have found, one after the other: a clock that runs only while
// nobody leads. A table remembers the sum it was told last, and whoever compares it
// with a later one knows all that the table has missed, however many leaders that
// were. Were only the last outage told, a table that was cut off for two of them
// would be credited with the second alone, and a lease of which it alone knows the
// last heartbeat would end though its owner could not beat.
type Outage struct {
	// Last is the one before the term's session.
	Last time.Duration
	// Total is the sum of all, Last included.
	Total time.Duration
}

// told is what a table knows of outages.
type told struct {
	any   bool          // it has acknowledged a Renew since it was made
	total time.Duration // as of the last one; later ones are not in its ages
	// stalled is what was taken out of the ages ahead, because this node did not run
	// or because it took over as leader.
	stalled time.Duration
}

// news is by how much the outages are more than a table was told last, ackAge ago;
// one that never was is of use since it was made. A new leader may have found less.
func (k told) news(o Outage, ackAge time.Duration) time.Duration {
	if k.any {
		return o.Total - k.total
	}
	return min(o.Last, ackAge)
}

// missing is what is still to be taken out of the ages of such a table.
func (k told) missing(o Outage, ackAge time.Duration) time.Duration {
	return max(0, k.news(o, ackAge)-k.stalled)
}

// outageOf finds the outage before now by the tables of those who answered, which
// are some of the voters. Each says what the total comes to if the last round that
// got its majority is the last it acknowledged. That round was acknowledged by all
// but voters-need of the voters, and so by at least n+need-voters of any n: so many
// say no more than is true, and of those the most counts. Tables that have
// acknowledged nothing yet prove nothing; where all are such, everything since
// they were made is an outage.
func outageOf(answers []answered, voters int, now time.Duration) Outage {
	if fault.Is(fault.NoOutage) {
		return Outage{}
	}
	var all []Outage
	var made time.Duration
	for i := range answers {
		last := answers[i].ackAge(now)
		if k := &answers[i].told; k.any {
			all = append(all, Outage{Last: last, Total: k.total + last})
		}
		made = max(made, last)
	}
	if len(all) == 0 {
		return Outage{Last: made, Total: made}
	}
	slices.SortFunc(all, func(a, b Outage) int { return cmp.Compare(a.Total, b.Total) })
	need := voters/2 + 1
	return all[max(0, len(all)+need-voters-1)]
}
