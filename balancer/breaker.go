package balancer

import (
	"math/bits"
	"time"

	"github.com/muster-registry/muster"
)

// State is the state of an instance's circuit breaker.
type State string

// The states of a circuit breaker.
const (
	// Closed: the instance is picked.
	Closed State = "closed"
	// Open: the instance failed and is ejected, as far as the settings' MaxEjected
	// allows.
	Open State = "open"
	// HalfOpen: its time is over, and a few picks try it.
	HalfOpen State = "half_open"
)

// The fixed measures of a breaker; the others are settings.
const (
	// shortWindow is how many of the latest outcomes the failure rate is taken of:
	// few enough that an instance which begins to fail every other request is out
	// after a dozen, however long it was well. An instance that usually fails more
	// than usualFailures, and is worse than that only by chance now and then, is
	// judged by longWindow: else one that fails 1 in 20 would be out every so often
	// under heavy traffic, and for longer and longer.
	shortWindow   = 20
	longWindow    = 60
	usualFailures = 0.04
	// usualMemory is over how many outcomes the usual rate is taken.
	usualMemory = 1000
	// minOutcomes and minFailures is what a failure rate needs at least.
	minOutcomes = 5
	minFailures = 3
	// windowAge is how long outcomes count where no others follow.
	windowAge = time.Minute
	// trials is how many picks try a half-open instance at once, and trialWait after
	// how long as many more may, where nothing was heard of them.
	trials    = 5
	trialWait = 5 * time.Second
	// closeAfter is how many successes close it.
	closeAfter = 3
	// minHalfOpen is how long it stays half-open at least where nothing is heard; as
	// long as it was ejected, if that is longer. Then it is given the benefit of the
	// doubt.
	minHalfOpen = 30 * time.Second
	// maxStrikes bounds the doubling of the ejection time.
	maxStrikes = 16
)

// breaker is a circuit breaker (Nygard, Release It!, 2007), with the two rules of
// Envoy's outlier detection (also gRPC's, gRFC A50) that need no other instance to
// compare with: failures in a row, and the share of failures among the latest
// outcomes. It is data: its owner locks, and gives the time.
type breaker struct {
	state State
	// since is when it left closed, or came back to it; until is when it leaves
	// another state by itself.
	since, until moment
	length       time.Duration // of the last ejection
	window       uint64        // the latest outcomes, failures set, the latest in bit 0
	seen         int           // how many of them are known
	usual        float64       // the share of failures over a long time
	row          uint64        // failures in a row
	good         uint64        // successes while half-open
	strikes      int           // ejections one soon after the other
	last         moment        // of the latest outcome
}

// change is what an outcome, or time, made of a breaker.
type change uint8

const (
	unchanged change = iota
	trippedRow
	trippedRate
	trippedTrial
	trippedShared
	closed
)

// tally is a number of outcomes.
type tally struct {
	successes, failures uint64
	latency             time.Duration // 0: not told
}

func (t tally) sum() uint64 { return t.successes + t.failures }

// learn takes outcomes in.
func (b *breaker) learn(t tally, s *muster.Settings, at moment) change {
	b.advance(at)
	if b.state == Closed && at-b.last > moment(windowAge) {
		b.window, b.seen, b.row = 0, 0, 0
	}
	b.last = at
	switch b.state {
	case Open:
		return unchanged // of requests from before, or of one ejected beyond the most allowed
	case HalfOpen:
		return b.try(t, s, at)
	}
	b.push(t)
	if s.MaxEjected == 0 {
		return unchanged
	}
	if s.ConsecutiveFailures > 0 && b.row >= uint64(s.ConsecutiveFailures) {
		b.trip(s, at)
		return trippedRow
	}
	failures, n := b.latest()
	least := minOutcomes
	if b.usual > usualFailures {
		least = shortWindow
	}
	if s.FailureRate > 0 && n >= least && failures >= minFailures && failures*100 >= s.FailureRate*n {
		b.trip(s, at)
		return trippedRate
	}
	return unchanged
}

// latest is how many of the latest outcomes that count are failures, and how many
// count.
func (b *breaker) latest() (failures, n int) {
	n = shortWindow
	if b.usual > usualFailures {
		n = longWindow
	}
	n = min(n, b.seen)
	return bits.OnesCount64(b.window & (1<<n - 1)), n
}

// try takes in outcomes of a half-open instance.
func (b *breaker) try(t tally, s *muster.Settings, at moment) change {
	rate := uint64(s.FailureRate)
	if rate == 0 {
		rate = 50
	}
	if t.failures > 0 && t.failures*100 >= rate*t.sum() {
		b.trip(s, at)
		return trippedTrial
	}
	b.good += t.successes
	if b.good < closeAfter {
		return unchanged
	}
	b.close(at)
	return closed
}

// push puts outcomes into the window, failures and successes evenly mixed, because
// nobody knows their order; of more than it holds, as many as have the same rate.
func (b *breaker) push(t tally) {
	switch {
	case t.failures == 0:
		b.row = 0
	case t.successes == 0:
		b.row += t.failures
	default:
		b.row = 0
	}
	sum, failures := t.sum(), t.failures
	b.usual += (float64(failures)/float64(sum) - b.usual) * min(1, float64(sum)/usualMemory)
	if sum > longWindow {
		failures = (failures*longWindow + sum/2) / sum
		sum = longWindow
	}
	for n := range sum {
		b.window = b.window<<1 | ((n+1)*failures/sum - n*failures/sum)
	}
	b.seen = min(longWindow, b.seen+int(sum))
}

// trip opens the breaker, for twice as long as the last time if that was not long
// ago.
func (b *breaker) trip(s *muster.Settings, at moment) {
	if b.state == Closed && at-b.since >= moment(muster.MaxEjectionTime) {
		b.strikes = 0
	}
	b.strikes = min(b.strikes+1, maxStrikes)
	length := min(time.Duration(s.EjectionTime)<<(b.strikes-1), muster.MaxEjectionTime)
	b.open(length, at)
}

func (b *breaker) open(length time.Duration, at moment) {
	since := at
	if b.state != Closed {
		since = b.since // it never came back
	}
	*b = breaker{state: Open, since: since, until: at.add(length), length: length, strikes: b.strikes, last: b.last, usual: b.usual}
}

func (b *breaker) close(at moment) {
	*b = breaker{state: Closed, since: at, strikes: b.strikes, last: b.last, usual: b.usual}
}

// advance lets time do what it does by itself.
func (b *breaker) advance(at moment) {
	if b.state == Open && at >= b.until {
		b.state = HalfOpen
		b.until = b.until.add(max(b.length, minHalfOpen))
	}
	if b.state == HalfOpen && at >= b.until {
		b.close(at)
	}
}

// adopt takes over what another node decided: an ejection that is to last yet for
// the time left, or, with none left, that the instance is well again. Nobody's word
// makes an ejection shorter.
func (b *breaker) adopt(left time.Duration, strikes int, at moment) change {
	b.advance(at)
	left = min(left, muster.MaxEjectionTime)
	switch {
	case left <= 0 && b.state == HalfOpen:
		b.close(at)
		return closed
	case left <= 0, b.state == Open && at.add(left) <= b.until:
		return unchanged
	}
	b.strikes = min(max(b.strikes, strikes), maxStrikes)
	b.open(left, at)
	return trippedShared
}

// rate is the share of failures among the latest outcomes, in percent.
func (b *breaker) rate() int {
	failures, n := b.latest()
	if n == 0 {
		return 0
	}
	return (failures*100 + n/2) / n
}
