package lease_test

import (
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/lease"
)

func granted(id muster.LeaseID) []lease.Change {
	return []lease.Change{{Record: lease.Record{ID: id}, Heard: true}}
}

// ages returns the copy as a map.
func ages(t *lease.Table, now time.Duration) map[muster.LeaseID]time.Duration {
	s := t.Copy(0, 1, now)
	m := map[muster.LeaseID]time.Duration{}
	for i, id := range s.IDs {
		m[id] = s.Ages[i]
	}
	return m
}

func TestTableFollowsState(t *testing.T) {
	a, b, early, late := muster.MakeLeaseID(1, 0), muster.MakeLeaseID(2, 0), muster.MakeLeaseID(9, 0), muster.MakeLeaseID(10, 3)
	tab := lease.NewTable(0)
	tab.Apply(1, granted(a), 0)
	tab.Apply(5, granted(b), 10)
	tab.Merge([]muster.LeaseID{a, muster.MakeLeaseID(4, 0), early, late}, 20)
	got := ages(tab, 30)
	want := map[muster.LeaseID]time.Duration{a: 10, b: 20, early: 10, late: 10}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v: ids that the state has passed and lacks are ignored, others kept", got, want)
	}
	for id, age := range want {
		if got[id] != age {
			t.Errorf("age of %v: got %v, want %v", id, got[id], age)
		}
	}
	tab.Apply(9, append(granted(early), lease.Change{Record: lease.Record{ID: a}, Gone: true}), 40)
	got = ages(tab, 40)
	if _, ok := got[a]; ok || got[early] != 0 || got[late] != 20 || tab.Len() != 2 {
		t.Errorf("after the state reached 9: %v", got)
	}
	tab.Apply(12, nil, 50)
	if _, ok := ages(tab, 50)[late]; ok {
		t.Error("an id that the state passed without it is still kept")
	}
}

func TestTableSettlesStalls(t *testing.T) {
	a := muster.MakeLeaseID(1, 0)
	for name, c := range map[string]struct {
		gap, want time.Duration // since the last tick; the age of a lease heard from a second before
		stalls    int
	}{
		"a late tick": {500 * time.Millisecond, 1500 * time.Millisecond, 0},
		"a stall":     {501 * time.Millisecond, time.Second, 1},
		"a long one":  {time.Hour, time.Second, 1},
	} {
		for _, reader := range []func(*lease.Table, time.Duration){
			func(tab *lease.Table, now time.Duration) { tab.Tick(now, true) },
			func(tab *lease.Table, now time.Duration) { tab.Merge(nil, now) },
			func(tab *lease.Table, now time.Duration) { tab.Heard(a, now) },
			func(tab *lease.Table, now time.Duration) { tab.Apply(2, nil, now) },
			func(tab *lease.Table, now time.Duration) { tab.Copy(0, 1, now) },
		} {
			tab := lease.NewTable(0)
			tab.Apply(1, granted(a), 0)
			for now := time.Duration(0); now <= time.Second; now += lease.TickEvery {
				tab.Tick(now, true)
			}
			now := time.Second + c.gap
			reader(tab, now)
			if got := ages(tab, now)[a]; got != c.want || tab.Stalls() != c.stalls {
				t.Errorf("%s: age %v and %d stalls, want %v and %d", name, got, tab.Stalls(), c.want, c.stalls)
			}
		}
	}
}

func TestTableCreditsOutages(t *testing.T) {
	a := muster.MakeLeaseID(1, 0)
	const s = time.Second
	tick := func(tab *lease.Table, from, to time.Duration) {
		for now := from; now <= to; now += lease.TickEvery {
			tab.Tick(now, true)
		}
	}
	t.Run("once for each term", func(t *testing.T) {
		tab := lease.NewTable(0)
		tab.Apply(1, granted(a), 0)
		tick(tab, 0, 10*s)
		tab.Ack(2, lease.Outage{Last: 4 * s, Total: 4 * s}, 10*s, 10*s)
		tab.Ack(2, lease.Outage{Last: 4 * s, Total: 4 * s}, 10*s, 10*s)
		tab.Ack(1, lease.Outage{Last: 4 * s}, 10*s, 10*s) // of an old term
		tab.Ack(2, lease.Outage{Last: 4 * s, Total: 4 * s}, 10*s, 10*s)
		if got := ages(tab, 10*s)[a]; got != 6*s {
			t.Errorf("age %v, want 6s", got)
		}
		tab.Ack(3, lease.Outage{Last: time.Hour, Total: time.Hour + 4*s}, 10*s, 10*s)
		if got := ages(tab, 10*s)[a]; got != 0 {
			t.Errorf("age %v, want none: never later than now", got)
		}
	})
	t.Run("those it was not told of", func(t *testing.T) {
		tab := lease.NewTable(0)
		tab.Apply(1, granted(a), 0)
		tick(tab, 0, 1*s)
		tab.Ack(1, lease.Outage{Last: 1 * s, Total: 100 * s}, 1*s, 1*s)
		tick(tab, 1*s, 10*s) // and away for terms 2 and 3, each with an outage of 3 s
		tab.Ack(4, lease.Outage{Last: 1 * s, Total: 107 * s}, 10*s, 10*s)
		if got := ages(tab, 10*s)[a]; got != 2*s {
			t.Errorf("age %v, want 2s: 1s before it was told of the first 100s, then 7s of 9s", got)
		}
	})
	t.Run("before it was told of any", func(t *testing.T) {
		tab := lease.NewTable(0)
		tab.Apply(1, granted(a), 0)
		tick(tab, 0, 10*s)
		tab.Ack(1, lease.Outage{Last: 3 * s, Total: 100 * s}, 10*s, 10*s)
		if got := ages(tab, 10*s)[a]; got != 7*s {
			t.Errorf("age %v, want 7s: those before its time are not in its ages", got)
		}
	})
	t.Run("what was settled as a stall is not taken out twice", func(t *testing.T) {
		tab := lease.NewTable(0)
		tab.Apply(1, granted(a), 0)
		tick(tab, 0, 1*s)
		tab.Ack(1, lease.Outage{}, 1*s, 1*s)
		tab.Tick(9*s, true) // stalled for 8 s
		if sh := tab.Copy(0, 1, 9*s); sh.AckAge != 8*s {
			t.Errorf("last ack %v ago, want 8s", sh.AckAge)
		}
		tick(tab, 9*s, 10*s)
		tab.Ack(2, lease.Outage{Last: 9 * s, Total: 9 * s}, 10*s, 10*s)
		if got := ages(tab, 10*s)[a]; got != 1*s {
			t.Errorf("age %v, want 1s: the outage of 9s held the stall of 8s", got)
		}
	})
	t.Run("a Renew proves that its leader was at work, and not when it is read", func(t *testing.T) {
		tab := lease.NewTable(0)
		tab.Apply(1, granted(a), 0)
		tick(tab, 0, 9*s)
		ackAge := func() time.Duration { return tab.Copy(0, 1, 9*s).AckAge }
		tab.Ack(1, lease.Outage{}, 3*s, 9*s) // six seconds on its way
		if got, want := ackAge(), 6*s-lease.ProofLasts; got != want {
			t.Errorf("a leader was at work %v ago, want %v", got, want)
		}
		tab.Ack(1, lease.Outage{Total: 2 * s}, 9*s-1, 9*s)
		if got := ackAge(); got != 0 {
			t.Errorf("a leader was at work %v ago, want now", got)
		}
		tab.Ack(1, lease.Outage{}, 4*s, 9*s) // overtaken
		tab.Ack(1, lease.Outage{Total: 2 * s}, 4*s, 9*s)
		if got, age := ackAge(), ages(tab, 9*s)[a]; got != 0 || age != 7*s {
			t.Errorf("a leader was at work %v ago and the lease was heard from %v ago; want now and 7s", got, age)
		}
	})
	t.Run("news of an outage are no proof", func(t *testing.T) {
		b := muster.MakeLeaseID(2, 0)
		tab := lease.NewTable(0)
		tab.Apply(2, append(granted(a), granted(b)...), 0)
		tick(tab, 0, 1*s)
		tab.Ack(1, lease.Outage{}, 1*s, 1*s)
		tick(tab, 1*s, 8*s)
		tab.Ack(2, lease.Outage{Last: 4 * s, Total: 4 * s}, -1, 8*s) // its leader has not heard from us
		if got := tab.Copy(0, 1, 8*s).AckAge; got != 3*s {
			t.Errorf("a leader was at work %v ago, want 3s: of 7s it told 4s", got)
		}
		tab.Merge([]muster.LeaseID{b}, 8*s)
		tick(tab, 8*s, 9*s)
		tab.Ack(2, lease.Outage{Last: 4 * s, Total: 4 * s}, 9*s, 9*s)
		if got, age := tab.Copy(0, 1, 9*s).AckAge, ages(tab, 9*s); got != 0 || age[a] != 5*s || age[b] != 1*s {
			t.Errorf("a leader was at work %v ago, the leases were heard from %v ago; want now, 5s and 1s", got, age)
		}
	})
	t.Run("those heard since the next leader began lose nothing by it", func(t *testing.T) {
		b := muster.MakeLeaseID(2, 0)
		tab := lease.NewTable(0)
		tab.Apply(2, append(granted(a), granted(b)...), 0)
		tick(tab, 0, 1*s)
		tab.Ack(1, lease.Outage{}, 1*s, 1*s)
		tick(tab, 1*s, 5*s)
		tab.Follow(2, 5*s)
		tab.Merge([]muster.LeaseID{b}, 5*s+1)
		tick(tab, 5*s, 6*s)
		tab.Follow(2, 6*s)
		// Four seconds before the leader, as it finds out within one, and one in its time.
		tab.Ack(2, lease.Outage{Last: 4 * s, Total: 5 * s}, 6*s, 6*s)
		if got := ages(tab, 6*s); got[a] != 1*s || got[b] != 0 {
			t.Errorf("ages %v, want 1s and none", got)
		}
		tick(tab, 6*s, 8*s)
		tab.Ack(2, lease.Outage{Last: 4 * s, Total: 6 * s}, 8*s, 8*s)
		if got := ages(tab, 8*s); got[a] != 2*s || got[b] != 1*s {
			t.Errorf("ages %v, want 2s and 1s: all are away in the leader's own time", got)
		}
		tab.Follow(3, 8*s)
		tab.Merge([]muster.LeaseID{b}, 8*s)
		tick(tab, 8*s, 8*s+lease.StallAfter)
		tab.Ack(3, lease.Outage{Last: 1 * s, Total: 7 * s}, 8*s+lease.StallAfter, 8*s+lease.StallAfter)
		if got := ages(tab, 8*s+lease.StallAfter); got[a] != 1*s+lease.StallAfter || got[b] != lease.StallAfter {
			t.Errorf("ages %v, want 1.5s and 0.5s: none since the leader of term 3 began", got)
		}
	})
	t.Run("a Renew from before a stall does not end it", func(t *testing.T) {
		tab := lease.NewTable(0)
		tab.Apply(1, granted(a), 0)
		tick(tab, 0, 1*s)
		tab.Ack(1, lease.Outage{}, 1*s, 1*s)
		tab.Tick(9*s, true) // stalled for 8 s
		tab.Ack(1, lease.Outage{}, 1*s, 9*s)
		if got := tab.Copy(0, 1, 9*s).AckAge; got != 8*s {
			t.Errorf("a leader was at work %v ago, want 8s", got)
		}
		tick(tab, 9*s, 10*s)
		tab.Ack(2, lease.Outage{Last: 8 * s, Total: 8 * s}, 10*s, 10*s)
		if got := ages(tab, 10*s)[a]; got != 2*s {
			t.Errorf("age %v, want 2s: the outage is the stall that was taken out before", got)
		}
		tick(tab, 10*s, 11*s)
		tab.Ack(2, lease.Outage{Last: 8 * s, Total: 9 * s}, 11*s, 11*s)
		if got := ages(tab, 11*s)[a]; got != 2*s {
			t.Errorf("age %v, want 2s: the next outage is another", got)
		}
	})
	t.Run("a leader's own once", func(t *testing.T) {
		tab := lease.NewTable(0)
		tab.Apply(1, granted(a), 0)
		tick(tab, 0, 1*s)
		tab.Ack(1, lease.Outage{}, 1*s, 1*s)
		tick(tab, 1*s, 10*s)
		o := lease.Outage{Last: 7 * s, Total: 7 * s}
		tab.TakeOver(o, 10*s, 10*s, func(_ muster.LeaseID, own time.Duration) time.Duration { return own })
		tab.Ack(2, o, 10*s, 10*s)
		if got := ages(tab, 10*s)[a]; got != 3*s {
			t.Errorf("age %v, want 3s", got)
		}
	})
	t.Run("a leader's own once, also where it was made in the outage", func(t *testing.T) {
		tab := lease.NewTable(0)
		tab.Apply(1, granted(a), 0)
		tick(tab, 0, 1*s)
		o := lease.Outage{Last: 3 * s, Total: 3 * s}
		tab.TakeOver(o, 1*s, 1*s, func(muster.LeaseID, time.Duration) time.Duration { return s / 2 })
		tick(tab, 1*s, 1400*time.Millisecond)
		tab.Ack(2, o, 1400*time.Millisecond, 1400*time.Millisecond) // the outage ended with the taking over
		if got := ages(tab, 1400*time.Millisecond)[a]; got != 900*time.Millisecond {
			t.Errorf("age %v, want 900ms", got)
		}
	})
}

// TestAckDoesNotLookAtEveryLease: each Renew of a leader is acknowledged, many times a
// second, by tables of a million leases. Where one that tells of no outage looked at
// all of them, these would take minutes.
func TestAckDoesNotLookAtEveryLease(t *testing.T) {
	tab := lease.NewTable(0)
	for n := range uint64(100_000) {
		tab.Apply(n+1, granted(muster.MakeLeaseID(n+1, 0)), 0)
	}
	outage := lease.Outage{Last: time.Second, Total: time.Second}
	began := time.Now()
	for n := range 100_000 {
		now := 2*time.Second + time.Duration(n)
		tab.Ack(1, outage, now, now)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("100,000 acknowledgements took %s", took)
	}
}

func TestTableAge(t *testing.T) {
	const s = time.Second
	tab := lease.NewTable(0)
	if got := tab.Copy(0, 1, 0).Age; got != 0 {
		t.Errorf("age of a table that is no voter's: %v", got)
	}
	for now := time.Duration(0); now < 10*s; now += lease.TickEvery {
		tab.Tick(now, now >= 5*s) // a learner for 5 s
	}
	if got := tab.Copy(0, 1, 10*s).Age; got != 5*s {
		t.Errorf("age %v, want 5s: since it became a voter", got)
	}
	tab.Reset(7, func(yield func(muster.LeaseID) bool) { yield(muster.MakeLeaseID(3, 0)) }, 10*s)
	if sh := tab.Copy(0, 1, 10*s); sh.Age != 0 || len(sh.IDs) != 1 || sh.Applied != 7 {
		t.Errorf("after a reset: %+v, want a table as young as after a start", sh)
	}
}

func TestCopyInParts(t *testing.T) {
	tab := lease.NewTable(0)
	for i := range uint64(1000) {
		tab.Apply(i+1, granted(muster.MakeLeaseID(i+1, 0)), 0)
	}
	seen := map[muster.LeaseID]bool{}
	for part := range 7 {
		for _, id := range tab.Copy(part, 7, 0).IDs {
			if seen[id] {
				t.Fatalf("%v is in two parts", id)
			}
			seen[id] = true
		}
	}
	if len(seen) != 1000 {
		t.Errorf("the parts hold %d leases, want 1000", len(seen))
	}
}
