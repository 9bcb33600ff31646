package health_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/health"
)

func TestMachine(t *testing.T) {
	for _, tc := range []struct {
		from       muster.Status
		fall, rise int
		probes     string // + passed, - failed
		want       string // the state after each: ? u d
	}{
		{muster.StatusUnknown, 3, 1, "+", "u"},
		{muster.StatusUnknown, 3, 1, "--+", "??u"},
		{muster.StatusUnknown, 3, 1, "---", "??d"},
		{muster.StatusUp, 3, 1, "--+--+---", "uuuuuuuud"},
		{muster.StatusDown, 3, 2, "+-++", "dddu"},
		{muster.StatusUp, 1, 3, "-++-+++", "ddddddu"},
		{muster.StatusUnknown, 0, 0, "-+", "du"},
	} {
		m := health.NewMachine(&muster.Check{Fall: tc.fall, Rise: tc.rise}, tc.from)
		got := ""
		for _, p := range tc.probes {
			before := m.State
			if changed := m.Observe(p == '+'); changed != (m.State != before) {
				t.Errorf("%+v: says %v of a change from %s to %s", tc, changed, before, m.State)
			}
			got += map[muster.Status]string{muster.StatusUnknown: "?", muster.StatusUp: "u", muster.StatusDown: "d"}[m.State]
		}
		if got != tc.want {
			t.Errorf("%+v: got %s", tc, got)
		}
	}
}

func TestDamper(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	run := func(n int, gap time.Duration) (d health.Damper, now time.Time) {
		now = start
		for k := range n {
			if k > 0 {
				now = now.Add(gap)
			}
			d.Change(now)
		}
		return d, now
	}
	for _, tc := range []struct {
		changes int
		gap     time.Duration
		min     time.Duration
		max     time.Duration
	}{
		{6, time.Second, 0, 0},
		{7, time.Second, 5 * time.Minute, 7 * time.Minute},
		{7, 100 * time.Second, 100 * time.Second, 4 * time.Minute}, // just within ten minutes
		{7, 101 * time.Second, 0, 0},
		{100, 5 * time.Minute, 0, 0},
		{100, time.Second, 9 * time.Minute, 10 * time.Minute},
	} {
		d, now := run(tc.changes, tc.gap)
		until := d.Held(now)
		held := time.Duration(0)
		if !until.IsZero() {
			held = until.Sub(now)
		}
		if held < tc.min || held > tc.max {
			t.Errorf("%d changes every %s: held for %s, want %s to %s", tc.changes, tc.gap, held, tc.min, tc.max)
		}
		if !d.Held(now.Add(held)).IsZero() {
			t.Errorf("%d changes every %s: still held at its release", tc.changes, tc.gap)
		}
	}
	// A change while it is held puts the release off, also for a leader that knows
	// no more than the release.
	d, now := run(7, time.Second)
	heir := health.HeldDamper(d.Held(now), now)
	if !heir.Held(now).Equal(d.Held(now)) {
		t.Errorf("the heir releases at %s instead of %s", heir.Held(now), d.Held(now))
	}
	later := now.Add(time.Minute)
	for _, each := range []*health.Damper{&d, &heir} {
		before := each.Held(later)
		if each.Change(later); !each.Held(later).After(before) {
			t.Errorf("a change while held: release at %s, then %s", before, each.Held(later))
		}
	}
}

// TestOwners: two different owners, everybody an equal share, and a node that
// comes or goes moves only what it has to.
func TestOwners(t *testing.T) {
	const count = 20_000
	ids := []string{"a1", "b2", "c3", "d4", "e5"}
	key := func(n int) muster.InstanceKey {
		return muster.InstanceKey{Namespace: "default", Service: fmt.Sprintf("s%d", n%100), ID: fmt.Sprintf("i%d", n)}
	}
	share := map[string]int{}
	moved := 0
	for n := range count {
		all, fewer := health.Owners(ids, key(n), n%3), health.Owners(ids[:4], key(n), n%3)
		if len(all) != 2 || all[0] == all[1] {
			t.Fatalf("owners %v", all)
		}
		for _, o := range all {
			share[o]++
			if !slices.Contains(fewer, o) {
				if moved++; o != "e5" {
					t.Fatalf("%s lost a check although e5 went: %v, then %v", o, all, fewer)
				}
			}
		}
		if again := health.Owners([]string{"e5", "c3", "a1", "d4", "b2"}, key(n), n%3); !slices.Equal(all, again) {
			t.Fatalf("the order of the nodes matters: %v, %v", all, again)
		}
	}
	for id, n := range share {
		if want := count * 2 / len(ids); n < want*95/100 || n > want*105/100 {
			t.Errorf("%s owns %d, want about %d", id, n, want)
		}
	}
	if moved != share["e5"] {
		t.Errorf("%d moved, e5 owned %d", moved, share["e5"])
	}
	if got := health.Owners(ids[:1], key(1), 0); len(got) != 1 {
		t.Errorf("alone: %v", got)
	}
	if got := health.Owners(nil, key(1), 0); len(got) != 0 {
		t.Errorf("nobody: %v", got)
	}
}

func TestConflicts(t *testing.T) {
	mk := func(service, id, address string, port int, status muster.Status) *muster.Instance {
		return &muster.Instance{Namespace: "default", Service: service, ID: id, Address: address, Port: port, Status: status}
	}
	all := []*muster.Instance{
		mk("web", "a", "10.0.0.1", 80, muster.StatusUp), mk("web", "b", "10.0.0.1", 80, muster.StatusUp), // one service: its own affair
		mk("api", "c", "10.0.0.1", 80, muster.StatusUp),
		mk("api", "d", "10.0.0.1", 81, muster.StatusUp), mk("db", "e", "10.0.0.1", 81, muster.StatusDown),
		mk("api", "f", "fd00::1", 80, muster.StatusUnknown), mk("db", "g", "fd00::1", 80, muster.StatusUp),
	}
	var got []string
	for _, c := range health.Conflicts(slices.Values(all)) {
		got = append(got, c.A.ID+"-"+c.B.ID)
	}
	if strings.Join(got, " ") != "a-c f-g" {
		t.Errorf("got %v", got)
	}
}
