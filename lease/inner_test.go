package lease

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

func TestHeardMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m heardMap
		want := map[muster.LeaseID]time.Duration{}
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			// Few ids, and many that share their low bits, so that probes collide.
			id := muster.MakeLeaseID(rapid.Uint64Range(1, 90).Draw(t, "index"), rapid.IntRange(0, 1).Draw(t, "place"))
			if rapid.Bool().Draw(t, "set") {
				at := time.Duration(rapid.Int64().Draw(t, "at"))
				m.set(id, at)
				want[id] = at
			} else {
				m.remove(id)
				delete(want, id)
			}
		}
		got := map[muster.LeaseID]time.Duration{}
		m.each(func(id muster.LeaseID, at *time.Duration) { got[id] = *at })
		if m.len != len(want) || !maps.Equal(got, want) {
			t.Fatalf("got %v (len %d), want %v", got, m.len, want)
		}
		for id, at := range want {
			if p := m.get(id); p == nil || *p != at {
				t.Fatalf("get(%v): got %v, want %v", id, p, at)
			}
		}
	})
}

// TestWheel: each record fires in the first advance at or after its deadline, and
// only there, whatever is taken out in between.
func TestWheel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w wheel
		now := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "start"))
		w.cur = int64(now / slotTime)
		type entry struct {
			*record
			deadline time.Duration
		}
		var in []entry
		take := func(r *record) (deadline time.Duration, ok bool) {
			n := slices.IndexFunc(in, func(e entry) bool { return e.record == r })
			if n < 0 {
				return 0, false
			}
			deadline = in[n].deadline
			in = slices.Delete(in, n, n+1)
			return deadline, true
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				deadline := now + time.Duration(rapid.Int64Range(-int64(time.Second), int64(5*time.Minute)).Draw(t, "ttl"))
				e := entry{&record{}, max(now, deadline)}
				w.add(e.record, deadline)
				in = append(in, e)
			case 2:
				if len(in) > 0 {
					r := in[rapid.IntRange(0, len(in)-1).Draw(t, "which")].record
					take(r)
					w.remove(r)
				}
			case 3:
				now += time.Duration(rapid.Int64Range(0, int64(3*time.Minute)).Draw(t, "gap"))
				w.advance(now, func(r *record) {
					deadline, ok := take(r)
					if !ok {
						t.Fatalf("a record fired that is not in the wheel")
					}
					if deadline > now { // beyond the wheel: it comes back
						w.add(r, deadline)
						in = append(in, entry{r, deadline})
					}
				})
				for _, e := range in {
					if e.deadline <= now-slotTime {
						t.Fatalf("a record whose deadline was %v ago has not fired; slot %d", now-e.deadline, e.slot)
					}
				}
			}
		}
	})
}

// TestWheelTouchesOncePerTTL renews leases all the time, and counts how often the
// wheel touches them.
func TestWheelTouchesOncePerTTL(t *testing.T) {
	const n, ttl, rounds = 1000, 10 * time.Second, 20
	table := NewTable(0)
	led := newLedger(table, nil, time.Minute)
	led.armed = true
	now, touched := time.Duration(0), 0
	for i := range n {
		c := Change{Record: Record{ID: muster.MakeLeaseID(uint64(i+1), 0), TTL: ttl}, Heard: true}
		table.Apply(uint64(i+1), []Change{c}, now)
		led.apply(&Changes{Leases: []Change{c}}, now)
	}
	for now < rounds*ttl {
		now += slotTime
		table.Tick(now, true)
		ids := make([]muster.LeaseID, n/33+1)
		for i := range ids {
			ids[i] = muster.MakeLeaseID(uint64((int(now/slotTime)*len(ids)+i)%n+1), 0)
		}
		table.Merge(ids, now)
		led.wheel.advance(now, func(rec *record) {
			touched++
			led.wheel.add(rec, led.deadline(rec, now))
		})
	}
	if got, most := touched, n*rounds*2; got > most || got < n*rounds {
		t.Errorf("touched %d times in %d TTLs of %d leases, want about once to twice each", got, rounds, n)
	}
}

func TestSeries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s series
		type event struct {
			at time.Duration
			v  int
		}
		var all []event
		now := time.Duration(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, 20).Draw(t, "gap")) * seriesGrain
			delta := rapid.IntRange(-3, 3).Draw(t, "delta")
			s.add(now, delta)
			all = append(all, event{now, s.value()})
		}
		for back := time.Duration(0); back <= maxWindow; back += time.Second {
			want := 0
			for _, e := range all {
				if e.at <= now-back {
					want = e.v
				}
			}
			if got := s.at(now - back); got != want {
				t.Fatalf("%v ago: got %d, want %d", back, got, want)
			}
		}
		if most := int(maxWindow/seriesGrain) + 2; len(s.steps) > most {
			t.Fatalf("%d steps kept, want at most %d", len(s.steps), most)
		}
	})
}

func TestNext(t *testing.T) {
	for range 1000 {
		ttl := time.Second + rand.N(time.Hour)
		if d := next(ttl, 1000); d > ttl/3+time.Millisecond || d < ttl/3*9/10-time.Millisecond {
			t.Fatalf("next(%v) = %v, want TTL/3 less up to a tenth", ttl, d)
		}
		if d := next(ttl, maxStretch); d > ttl/2+time.Millisecond {
			t.Fatalf("next(%v) = %v under load, want at most half of it", ttl, d)
		}
	}
	var l load
	for range 100 {
		l.note(time.Second)
	}
	if got := l.stretch(); got != maxStretch {
		t.Errorf("stretch under load: got %d, want %d", got, maxStretch)
	}
	for range 100 {
		l.note(time.Millisecond)
	}
	if got := l.stretch(); got != 1000 {
		t.Errorf("stretch when idle: got %d, want 1000", got)
	}
}

func TestShedMeter(t *testing.T) {
	var m shedMeter
	m.add(0, 10_000, 10)
	if m.shedding(0, 10*time.Second) {
		t.Error("10 of 10,010 refused counts as shedding, want not")
	}
	m.add(time.Second, 0, 1)
	if !m.shedding(time.Second, 10*time.Second) {
		t.Error("11 of 10,011 refused does not count as shedding")
	}
	if m.shedding(20*time.Second, 10*time.Second) {
		t.Error("refused longer ago than the TTL still counts")
	}
}

// TestOutageOf: of n tables of v voters those say no more than is true that have
// acknowledged the last round that got its majority, and they are at least
// n+majority-v.
func TestOutageOf(t *testing.T) {
	const s = time.Second
	table := func(total, ackAge time.Duration) answered {
		return answered{Shadow: Shadow{AckAge: ackAge, told: told{any: true, total: total}}, at: 100 * s}
	}
	young := func(made time.Duration) answered { return answered{Shadow: Shadow{AckAge: made}, at: 100 * s} }
	for name, c := range map[string]struct {
		answers []answered
		voters  int
		want    Outage
	}{
		"both were told":              {[]answered{table(10*s, 2*s), table(10*s, 3*s)}, 3, Outage{2 * s, 12 * s}},
		"one missed a term":           {[]answered{table(10*s, 2*s), table(4*s, 30*s)}, 3, Outage{2 * s, 12 * s}},
		"one alone heard a round":     {[]answered{table(10*s, 2*s), table(10*s, 3*s), table(10*s, 9*s)}, 3, Outage{3 * s, 13 * s}},
		"three of five":               {[]answered{table(10*s, 2*s), table(10*s, 3*s), table(10*s, 9*s)}, 5, Outage{2 * s, 12 * s}},
		"one has just started":        {[]answered{young(s / 2), table(10*s, 3*s)}, 3, Outage{3 * s, 13 * s}},
		"all have just started":       {[]answered{young(s / 2), young(s)}, 3, Outage{s, s}},
		"the answer came a while ago": {[]answered{{Shadow: Shadow{AckAge: s, told: told{any: true}}, at: 99 * s}}, 1, Outage{2 * s, 2 * s}},
	} {
		if got := outageOf(c.answers, c.voters, 100*s); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// TestYoungTablesCountInTimeThatCounts: a table's age does not grow in an outage.
func TestYoungTablesCountInTimeThatCounts(t *testing.T) {
	const s = time.Second
	a := []answered{
		{Shadow: Shadow{Age: 60 * s, AckAge: 8 * s, told: told{any: true}}, at: 99 * s},
		{Shadow: Shadow{Age: 11 * s, AckAge: 8 * s, told: told{any: true}}, at: 99 * s},
		{Shadow: Shadow{AckAge: 8 * s, told: told{any: true}}, at: 99 * s}, // no voter's
	}
	g := newGathering(a, 3, 100*s)
	for ttl, want := range map[time.Duration]int{1 * s: 2, 2 * s: 2, 3 * s: 1, 50 * s: 1, 52 * s: 0} {
		if got := g.counting(ttl); got != want {
			t.Errorf("%d tables count for a TTL of %v, want %d", got, ttl, want)
		}
	}
	tab := NewTable(0)
	for now := time.Duration(0); now <= 10*s; now += TickEvery {
		tab.Tick(now, true)
	}
	tab.Ack(1, Outage{Last: 4 * s, Total: 4 * s}, 10*s, 10*s)
	if got := tab.Copy(0, 1, 10*s).Age; got != 6*s {
		t.Errorf("age %v after an outage of 4s in 10s, want 6s", got)
	}
}

func fuzz[M interface {
	parse([]byte) error
	append([]byte) []byte
}](f *testing.F, fresh func() M, seeds ...M) {
	for _, s := range seeds {
		f.Add(s.append(nil))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := fresh()
		if m.parse(b) != nil {
			return
		}
		once := m.append(nil)
		again := fresh()
		if err := again.parse(once); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if twice := again.append(nil); !bytes.Equal(once, twice) {
			t.Fatalf("written twice: got %x, want %x", twice, once)
		}
	})
}

func FuzzRenew(f *testing.F) {
	fuzz(f, func() *renewMsg { return new(renewMsg) },
		&renewMsg{term: 7}, &renewMsg{term: 7, outage: Outage{time.Second, time.Hour}, outageKnown: true, ids: []muster.LeaseID{1, 1 << 63}, echo: 1 << 60})
}

func FuzzGather(f *testing.F) {
	fuzz(f, func() *gatherMsg { return new(gatherMsg) }, &gatherMsg{term: 7, part: 2, parts: 3})
}

func FuzzShadow(f *testing.F) {
	fuzz(f, func() *gatherAck { return new(gatherAck) }, &gatherAck{ok: true, shadow: Shadow{
		Age: time.Hour, AckAge: time.Second, told: told{any: true, total: time.Hour, stalled: time.Minute}, Applied: 9,
		IDs: []muster.LeaseID{5, 6}, Ages: []time.Duration{0, time.Minute},
	}})
}

func FuzzBeat(f *testing.F) {
	fuzz(f, func() *beatMsg { return new(beatMsg) }, &beatMsg{wait: true, shed: 3, names: []Name{
		{Lease: 42}, {Instance: muster.InstanceKey{Namespace: "default", Service: "web", ID: "1"}, Incarnation: 9},
	}})
}

func FuzzBeatAck(f *testing.F) {
	fuzz(f, func() *beatAck { return new(beatAck) },
		&beatAck{stretch: 1200, verdicts: []Result{{TTL: 10 * time.Second}, {State: BeatUnknown}, {State: beatPending}}})
}

func FuzzLook(f *testing.F) {
	fuzz(f, func() *lookAck { return new(lookAck) }, &lookAck{known: true, remaining: time.Second})
}

func TestCodecKeeps(t *testing.T) {
	names := []Name{{Lease: 42}, {Instance: muster.InstanceKey{Namespace: "default", Service: "web", ID: "1"}, Incarnation: 9}}
	var m beatMsg
	if err := m.parse((&beatMsg{wait: true, shed: 3, names: names}).append(nil)); err != nil || !slices.Equal(m.names, names) || !m.wait || m.shed != 3 {
		t.Errorf("got %+v, %v", m, err)
	}
	s := Shadow{Age: time.Hour, AckAge: time.Second, told: told{true, 3, 1}, Applied: 9, IDs: []muster.LeaseID{5, 6}, Ages: []time.Duration{0, 1999 * time.Microsecond}}
	var a gatherAck
	if err := a.parse((&gatherAck{ok: true, shadow: s}).append(nil)); err != nil {
		t.Fatal(err)
	}
	if got := a.shadow; got.Age != s.Age || got.AckAge != s.AckAge || got.told != s.told || got.Applied != s.Applied {
		t.Errorf("got %+v, want %+v", got, s)
	}
	if got := a.shadow.Ages[1]; got != time.Millisecond {
		t.Errorf("an age of 1.999ms: got %v, want it rounded down: younger is never early", got)
	}
	for _, o := range []renewMsg{{}, {outageKnown: true}, {outage: Outage{5, 7}, outageKnown: true}, {echo: 1<<64 - 1}} {
		var r renewMsg
		if err := r.parse(o.append(nil)); err != nil || r.outage != o.outage || r.outageKnown != o.outageKnown || r.echo != o.echo {
			t.Errorf("got %+v, %v; want %+v", r, err, o)
		}
	}
	for name, bad := range map[string][]byte{
		"half an id":        wire.AppendNumber(nil, 1, 1)[:1],
		"odd ids":           {3<<3 | 2, 7, 1, 2, 3, 4, 5, 6, 7},
		"a long outage":     wire.AppendNumber(nil, 2, 1<<63),
		"more than allowed": (&renewMsg{ids: make([]muster.LeaseID, maxIDs+1)}).append(nil),
	} {
		if err := new(renewMsg).parse(bad); err == nil {
			t.Errorf("%s: read without an error", name)
		}
	}
}

// TestGatheringOfManyLeases: the shadow of more leases than one part holds is asked for
// in parts, each of which a voter agrees to give, and the longest TTL is that of all.
func TestGatheringOfManyLeases(t *testing.T) {
	for leases, want := range map[int]int{0: 1, partLeases - 1: 1, partLeases: 2, 3*partLeases + 1: 4} {
		k := &Keeper{cfg: Config{}.withDefaults(), table: NewTable(0)}
		s := &session{k: k, led: newLedger(k.table, nil, time.Minute)}
		for n := range leases {
			id := muster.MakeLeaseID(uint64(n+1), 0)
			s.led.records[id] = &record{id: id, ttl: time.Duration(n+1) * time.Millisecond}
			k.table.Apply(uint64(n+1), []Change{{Record: Record{ID: id}, Heard: true}}, 0)
		}
		parts, longest := s.extent()
		if parts != want || longest != time.Duration(leases)*time.Millisecond {
			t.Errorf("%d leases: %d parts and a TTL of %s, want %d and %s", leases, parts, longest, want, time.Duration(leases)*time.Millisecond)
		}
		all := 0
		for part := range parts {
			ids := len(k.table.Copy(part, parts, 0).IDs)
			if all += ids; ids > maxIDs {
				t.Errorf("part %d of %d of %d leases holds %d, more than a message may", part, parts, leases, ids)
			}
		}
		if all != leases {
			t.Errorf("the %d parts of %d leases hold %d", parts, leases, all)
		}
	}
}

// halfDeaf are three voters of which b answers at once, with a young table, and c never.
type halfDeaf struct {
	Raft
	Peers
}

func (halfDeaf) ID() string       { return "a" }
func (halfDeaf) Voters() []string { return []string{"a", "b", "c"} }
func (halfDeaf) Call(ctx context.Context, to, _ string, _ []byte) ([]byte, error) {
	if to == "c" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return (&gatherAck{ok: true, shadow: Shadow{Age: time.Second}}).append(nil), nil
}

// TestGatheringWaitsNoLongerThanItMust: a TTL that no table is old enough for does not
// make a new leader wait for a silent voter as long as all parts may take, once a
// majority has given all of theirs.
func TestGatheringWaitsNoLongerThanItMust(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const parts = 10
		k := &Keeper{cfg: Config{}.withDefaults(), table: NewTable(0), raft: halfDeaf{}, peers: halfDeaf{}, clock: time.Now, origin: time.Now()}
		s := &session{k: k, term: 3}
		ctx, cancel := context.WithTimeout(t.Context(), parts*k.cfg.GatherTimeout)
		defer s.wg.Wait()
		defer cancel()
		began := time.Now()
		all, _ := s.collect(ctx, parts, time.Hour)
		if took := time.Since(began); len(all) != 2 || took != k.cfg.GatherTimeout {
			t.Errorf("%d shadows in %v, want 2 in %v", len(all), took, k.cfg.GatherTimeout)
		}
	})
}
