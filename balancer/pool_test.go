package balancer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// state makes an instance from a word: what it is and nothing else.
func state(word string, i *muster.Instance) {
	switch word {
	case "up":
	case "suspect":
		i.Suspect = true
	case "failing":
		i.Status, i.StatusCause = muster.StatusDown, muster.CauseCheckFailed
	case "expired":
		i.Status, i.StatusCause = muster.StatusDown, muster.CauseLeaseExpired
	case "released":
		i.Status, i.StatusCause = muster.StatusDown, muster.CauseReleased
	case "weightless":
		i.Weight = 0
	case "unknown", "draining", "maintenance":
		i.Status = muster.Status(word)
	case "ejected": // the test reports failures
	default:
		panic(word)
	}
}

// panics is the table of who is picked when.
var panics = []struct {
	states    string
	threshold int    // -1: the default
	want      string // the numbers of those picked
	panic     bool
}{
	// While half of them are well, nobody else is picked.
	{"up up up up", -1, "0 1 2 3", false},
	{"up up failing failing", -1, "0 1", false},
	{"up up suspect suspect", -1, "0 1", false},
	{"up suspect", -1, "0", false},
	{"up ejected", -1, "0", false},
	// Fewer than half: all that may be alive.
	{"up up failing failing failing", -1, "0 1 2 3 4", true},
	{"up suspect suspect", -1, "0 1 2", true},
	{"up ejected failing", -1, "0 1 2", true},
	{"failing failing", -1, "0 1", true},
	{"suspect", -1, "0", true},
	{"suspect failing", -1, "0 1", true},
	// And never the others.
	{"up failing maintenance draining unknown expired released weightless", -1, "0 1", true},
	{"up maintenance maintenance", -1, "0", true},
	{"maintenance draining unknown expired weightless", -1, "", false},
	{"expired expired", -1, "", false},
	// One that is down by its check, with nobody beside it.
	{"failing", -1, "", false},
	{"failing maintenance draining", -1, "", false},
	{"failing expired", -1, "", false},
	// The threshold is the service's.
	{"up up failing", 67, "0 1 2", true},
	{"up up failing", 66, "0 1", false},
	{"up failing failing failing", 25, "0", false},
	{"up failing failing failing", 26, "0 1 2 3", true},
	{"up up up failing", 100, "0 1 2 3", true},
	{"up up up up", 100, "0 1 2 3", false},
	// Without panic, the suspect are the last resort.
	{"up failing failing failing suspect", 0, "0", false},
	{"suspect failing failing suspect", 0, "0 3", false},
	{"failing failing", 0, "", false},
	{"ejected ejected suspect maintenance", 0, "1", false},
}

func TestPanic(t *testing.T) {
	t.Parallel()
	for _, c := range panics {
		t.Run(fmt.Sprintf("%s at %d", c.states, c.threshold), func(t *testing.T) {
			t.Parallel()
			b := newBalancer(t, balancer.Config{Random: seeded(1)})
			words := strings.Fields(c.states)
			v := service(len(words), func(k int, i *muster.Instance) { state(words[k], i) })
			if c.threshold >= 0 {
				with(v, func(s *muster.Settings) { s.PanicThreshold = c.threshold })
			}
			for k, w := range words {
				if w == "ejected" {
					fail(t, b, epoch, v, v.Instances[k].ID, 5)
				}
			}
			every(t, func(t *testing.T, s balancer.Strategy) {
				var got []string
				for k := range 400 {
					choice, err := b.Pick(epoch, &balancer.Request{View: v, Strategy: s, Key: fmt.Sprint(k)})
					if err != nil {
						if c.want != "" || muster.CodeOf(err) != muster.CodeNoInstance {
							t.Fatal(err)
						}
						return
					}
					if choice.Panic != c.panic {
						t.Fatalf("panic %v, want %v", choice.Panic, c.panic)
					}
					got = append(got, strings.TrimLeft(choice.Instance.ID[1:6], "0")+choice.Instance.ID[6:])
				}
				slices.Sort(got)
				if got := strings.Join(slices.Compact(got), " "); got != strings.Join(strings.Fields(c.want), " ") {
					t.Errorf("picked %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestNoInstanceSaysWhy(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	words := []string{"maintenance", "expired", "maintenance", "weightless", "failing"}
	_, err := b.Pick(epoch, &balancer.Request{View: service(5, func(k int, i *muster.Instance) { state(words[k], i) })})
	const want = "no_instance: no instance of service web can be picked: 1 down, 1 expired, 1 of weight 0, 2 maintenance"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	v := service(0)
	v.EmptyReason = muster.EmptyExpired
	if _, err = b.Pick(epoch, &balancer.Request{View: v}); err == nil || err.Error() != "no_instance: service web has no instance (expired)" {
		t.Errorf("got %v", err)
	}
}

func TestSettingsDecide(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	v := with(service(3), func(s *muster.Settings) { s.Strategy = "rendezvous" })
	if c := pick(t, b, epoch, &balancer.Request{View: v, Key: "k"}); c.Strategy.Name() != "rendezvous" || c.Index != v.Index {
		t.Errorf("got %s at %d", c.Strategy.Name(), c.Index)
	}
	if c := pick(t, b, epoch, &balancer.Request{View: v, Strategy: strategy(t, "random")}); c.Strategy.Name() != "random" {
		t.Errorf("asked for random, got %s", c.Strategy.Name())
	}
	if c := pick(t, b, epoch, &balancer.Request{View: service(3)}); c.Strategy.Name() != "round_robin" {
		t.Errorf("without settings: got %s", c.Strategy.Name())
	}
	// The rules of the breaker are settings too, and follow a change of theirs.
	v = with(service(4), func(s *muster.Settings) { s.ConsecutiveFailures, s.FailureRate = 2, 0 })
	fail(t, b, epoch, v, "i000000", 2)
	if st := b.Stats(epoch, v); !st.Instances[0].Ejected || st.Strategy != "round_robin" {
		t.Errorf("two failures in a row: got %+v", st)
	}
	report(t, b, epoch, v, "i000001", balancer.Outcomes{Successes: 1, Failures: 9})
	if st := b.Stats(epoch, v); st.Instances[1].Ejected || st.Instances[1].FailureRate != 90 {
		t.Errorf("with the rate's rule off: got %+v", st.Instances[1])
	}
	off := with(again(v), func(s *muster.Settings) { s.MaxEjected = 0 })
	fail(t, b, epoch, off, "i000002", 50)
	if st := b.Stats(epoch, off); st.Ejected != 0 {
		t.Errorf("with ejection off: got %+v", st)
	}
}

// TestZones: a zone keeps its picks while enough of it can be picked, and spills
// over in proportion below.
func TestZones(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		states    string // of the ten instances of zone z0
		threshold int
		stay      float64
	}{
		{"all well", "up up up up up up up up up up", 70, 1},
		{"at the threshold", "up up up up up up up failing failing failing", 70, 1},
		{"below", "up up up up up failing failing draining maintenance expired", 70, 5.0 / 7},
		{"far below", "up failing failing failing failing failing failing failing failing failing", 70, 1.0 / 7},
		{"the ejected count", "up up up up up up ejected ejected ejected failing", 90, 6.0 / 9},
		{"nobody", "failing failing failing failing failing failing failing failing failing failing", 70, 0},
		{"no threshold", "up failing failing failing failing failing failing failing failing failing", 0, 1},
		{"a high threshold", "up up up up up up up up up failing", 100, 0.9},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			words := strings.Fields(c.states)
			v := with(service(60, mixedWeights, inZones(6), func(k int, i *muster.Instance) {
				if k%6 == 0 {
					state(words[k/6], i)
					i.Weight = 50 // capacity by the number
				}
			}), func(s *muster.Settings) { s.ZoneThreshold = c.threshold })
			every(t, func(t *testing.T, s balancer.Strategy) {
				b := newBalancer(t, balancer.Config{Random: seeded(1)})
				for k, w := range words {
					if w == "ejected" {
						fail(t, b, epoch, v, v.Instances[k*6].ID, 5)
					}
				}
				local, elsewhere := 0, map[string]bool{}
				for id, n := range picks(t, b, epoch, balancer.Request{View: v, Strategy: s, Zone: "z0"}, 2500) {
					if v.Find(id).Zone == "z0" {
						local += n
					} else {
						elsewhere[v.Find(id).Zone] = true
					}
				}
				if share := float64(local) / 2500; share < c.stay-0.04 || share > c.stay+0.04 {
					t.Errorf("%.3f stayed, want %.3f", share, c.stay)
				}
				if want := c.stay < 1; want != (len(elsewhere) == 5) || !want && len(elsewhere) > 0 {
					t.Errorf("the rest went to %v", elsewhere)
				}
			})
		})
	}
}

func TestAnUnknownZone(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, s balancer.Strategy) {
		b := newBalancer(t, balancer.Config{Random: seeded(1)})
		for _, v := range []*muster.View{service(12, inZones(3)), service(12)} {
			if got := picks(t, b, epoch, balancer.Request{View: v, Strategy: s, Zone: "nowhere"}, 2000); len(got) != 12 {
				t.Errorf("picked from %d of 12", len(got))
			}
		}
	})
}

func TestAPanicKnowsNoZones(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{Random: seeded(1)})
	v := service(12, inZones(3), status(muster.StatusDown, muster.CauseCheckFailed))
	if got := picks(t, b, epoch, balancer.Request{View: v, Zone: "z1"}, 2000); len(got) != 12 {
		t.Errorf("picked from %d of 12", len(got))
	}
}

// TestZoneSharesGoByWeight: within a zone, and within the others.
func TestZoneSharesGoByWeight(t *testing.T) {
	t.Parallel()
	v := with(service(9, weights(10, 200, 30, 30, 600, 90, 10, 200, 30), inZones(3),
		only(status(muster.StatusDraining, muster.CauseDrain), 6)), func(s *muster.Settings) { s.ZoneThreshold = 100 })
	// Zone z0 has 40 of 50 left: 4/5 stay, 1/4 and 3/4 of them; the rest goes by 200,
	// 30, 600, 90, 200, 30.
	want := map[string]float64{
		"i000000": 0.2, "i000003": 0.6, "i000001": 0.2 * 200 / 1150, "i000002": 0.2 * 30 / 1150,
		"i000004": 0.2 * 600 / 1150, "i000005": 0.2 * 90 / 1150, "i000007": 0.2 * 200 / 1150, "i000008": 0.2 * 30 / 1150,
	}
	every(t, func(t *testing.T, s balancer.Strategy) {
		if !s.Weighted() {
			t.Skip("weights do not count")
		}
		b := newBalancer(t, balancer.Config{Random: seeded(2)})
		const total = 20_000
		got := picks(t, b, epoch, balancer.Request{View: v, Strategy: s, Zone: "z0"}, total)
		var chi float64
		for id, share := range want {
			d := float64(got[id]) - total*share
			chi += d * d / (total * share)
		}
		if limit := chiSquare(len(want)-1, 3.7); chi > limit || got["i000006"] > 0 {
			t.Errorf("chi-square %.1f, want at most %.1f; got %v", chi, limit, got)
		}
	})
}

// TestSlowStart: a young instance has a share that grows, in every strategy that
// goes by weights and in no other.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	registered := func(i *muster.Instance, at time.Time) { i.RegisteredAt = at }
	cameUp := func(i *muster.Instance, at time.Time) { i.StatusSince = at }
	for _, c := range []struct {
		since func(i *muster.Instance, at time.Time)
		age   time.Duration
		want  float64 // of its weight
	}{
		{registered, 0, 0.1}, {registered, 10 * time.Second, 0.1}, {registered, 50 * time.Second, 0.5}, {registered, 100 * time.Second, 1},
		{cameUp, 15 * time.Second, 0.15}, {cameUp, 95 * time.Second, 0.95}, {cameUp, time.Hour, 1},
		{registered, -20 * time.Second, 0.1}, {registered, -time.Hour, 1}, // clocks differ
	} {
		t.Run(c.age.String(), func(t *testing.T) {
			t.Parallel()
			v := with(service(10, func(k int, i *muster.Instance) {
				if i.Weight = 50 + k; k == 4 {
					c.since(i, epoch.Add(-c.age))
				}
			}), func(s *muster.Settings) { s.SlowStart = muster.Duration(100 * time.Second) })
			every(t, func(t *testing.T, s balancer.Strategy) {
				b := newBalancer(t, balancer.Config{Random: seeded(3)})
				const total = 5000
				got := picks(t, b, epoch, balancer.Request{View: v, Strategy: s}, total)
				want := 0.1
				if s.Weighted() {
					young := 54 * c.want
					want = young / (545 - 54 + young)
				}
				if share := float64(got["i000004"]) / total; share < want-0.02 || share > want+0.02 {
					t.Errorf("its share is %.4f, want %.4f", share, want)
				}
			})
		})
	}
}

// TestSlowStartGoesOnByItself: nobody has to change the view.
func TestSlowStartGoesOnByItself(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{Random: seeded(3)})
	v := with(service(2, only(func(_ int, i *muster.Instance) { i.RegisteredAt = epoch }, 0)),
		func(s *muster.Settings) { s.SlowStart = muster.Duration(time.Minute) })
	r := balancer.Request{View: v, Strategy: strategy(t, "weighted_round_robin")}
	last := 0
	for step := range 5 {
		n := picks(t, b, epoch.Add(time.Duration(step)*16*time.Second), r, 1200)["i000000"]
		if n <= last && step < 4 || n > 600 || step == 4 && n != 600 {
			t.Errorf("after %d s: %d of 1200, before it was %d", step*16, n, last)
		}
		last = n
	}
}
