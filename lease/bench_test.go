package lease

import (
	"runtime"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

const benchLeases = 100_000

func benchIDs() []muster.LeaseID {
	ids := make([]muster.LeaseID, benchLeases)
	for i := range ids {
		ids[i] = muster.MakeLeaseID(uint64(1000+i/7), i%7)
	}
	return ids
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkTableMemory reports what a node that does not lead holds for a lease.
func BenchmarkTableMemory(b *testing.B) {
	ids := benchIDs()
	for range b.N {
		before := heapBytes()
		t := NewTable(0)
		for _, id := range ids {
			t.Apply(id.Index(), []Change{{Record: Record{ID: id}, Heard: true}}, 0)
		}
		b.ReportMetric(float64(heapBytes()-before)/benchLeases, "B/lease")
		runtime.KeepAlive(t)
	}
}

// BenchmarkLedgerMemory reports what a leader holds for a lease beyond its table.
func BenchmarkLedgerMemory(b *testing.B) {
	ids := benchIDs()
	for range b.N {
		recs := make([]Record, len(ids))
		for i, id := range ids {
			recs[i] = Record{ID: id, TTL: 10 * time.Second, Services: []muster.ServiceKey{{Namespace: "default", Service: "web"}}}
		}
		t := NewTable(0)
		before := heapBytes()
		l := newLedger(t, nil, time.Minute)
		l.load(recs, nil, 0)
		l.armAll(0)
		b.ReportMetric(float64(heapBytes()-before)/benchLeases, "B/lease")
		runtime.KeepAlive(l)
		runtime.KeepAlive(recs)
	}
}

func benchTable(ids []muster.LeaseID) *Table {
	t := NewTable(0)
	for _, id := range ids {
		t.Apply(id.Index(), []Change{{Record: Record{ID: id}, Heard: true}}, 0)
	}
	return t
}

// BenchmarkMerge is the receiver's cost of one renewal.
func BenchmarkMerge(b *testing.B) {
	ids := benchIDs()
	t := benchTable(ids)
	for n := 0; n < b.N; n += 1000 {
		at := n * 31 % (benchLeases - 1000)
		t.Merge(ids[at:at+1000], 0)
	}
}

// BenchmarkAck is a voter's cost of a Renew beside the leases it names.
func BenchmarkAck(b *testing.B) {
	t := benchTable(benchIDs())
	t.Ack(1, Outage{Last: time.Second, Total: time.Second}, 0, time.Second)
	for b.Loop() {
		t.Ack(1, Outage{Last: time.Second, Total: time.Second}, time.Second, time.Second)
	}
}

// BenchmarkRenew is the leader's cost of one renewal up to the round: look-up and
// merge.
func BenchmarkRenew(b *testing.B) {
	ids := benchIDs()
	k := &Keeper{table: benchTable(ids)}
	s := &session{k: k, led: newLedger(k.table, nil, time.Minute)}
	names := make([]Name, len(ids))
	for i, id := range ids {
		names[i].Lease = id
		s.led.add(&Record{ID: id, TTL: 10 * time.Second}, 0, 0)
	}
	r := &renewal{results: make([]Result, 1000), ids: make([]muster.LeaseID, 0, 1000)}
	for n := 0; n < b.N; n += 1000 {
		at := n * 31 % (benchLeases - 1000)
		r.names, r.ids, r.todo = names[at:at+1000], r.ids[:0], r.todo[:0]
		for i := range 1000 {
			r.todo = append(r.todo, i)
		}
		s.renew(r, nil, false, 0)
	}
}

// BenchmarkSweep is the leader's cost of keeping one lease for one TTL of 10 s in
// the wheel, its heartbeats aside.
func BenchmarkSweep(b *testing.B) {
	ids := benchIDs()
	t := benchTable(ids)
	l := newLedger(t, nil, time.Minute)
	for _, id := range ids {
		l.add(&Record{ID: id, TTL: 10 * time.Second}, 0, 0)
	}
	l.armAll(0)
	now := time.Duration(0)
	never := func(time.Duration) bool { return false }
	for n := 0; n < b.N; n += benchLeases {
		for range 100 { // ten seconds
			now += slotTime
			t.Tick(now, true)
			if now%(5*time.Second) == 0 {
				b.StopTimer()
				t.Merge(ids, now)
				b.StartTimer()
			}
			l.sweep(now, never)
		}
	}
	if len(l.due) > 0 {
		b.Fatalf("%d leases ran out", len(l.due))
	}
}

// BenchmarkJudge is the leader's cost of one lease in a judgement of a mass loss.
func BenchmarkJudge(b *testing.B) {
	g := NewGovernor(nil)
	due := make([]Due, benchLeases)
	for i := range due {
		due[i] = Due{TTL: 10 * time.Second, Services: []muster.ServiceKey{{Namespace: "default", Service: "web"}}}
		g.Join(0, due[i].Services)
	}
	for b.Loop() {
		if v := g.Judge(time.Minute, due); !v[benchLeases-1].Hold {
			b.Fatal("a mass loss is not held")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchLeases, "ns/lease")
}

// BenchmarkMassLoss is the leader's cost of deciding about one lease, where all fall
// silent in the same moment.
func BenchmarkMassLoss(b *testing.B) {
	ids := benchIDs()
	b.ReportAllocs()
	for range b.N {
		b.StopTimer()
		l := newLedger(benchTable(ids), nil, time.Minute)
		for _, id := range ids {
			l.add(&Record{ID: id, TTL: 10 * time.Second, Services: []muster.ServiceKey{{Namespace: "default", Service: "web"}}}, -2*maxWindow, 0)
		}
		l.armAll(0)
		now := 11 * time.Second
		for at := time.Duration(0); at <= now; at += TickEvery {
			l.table.Tick(at, true)
		}
		b.StartTimer()
		l.sweep(now, func(time.Duration) bool { return false })
		taken := 0
		for f := l.takeDue(now); f != nil; f = l.takeDue(now) {
			taken += len(f.recs)
		}
		if taken != len(ids) {
			b.Fatalf("decided about %d of %d", taken, len(ids))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchLeases, "ns/lease")
}

// BenchmarkCopy is a voter's cost of a whole shadow, and of writing it.
func BenchmarkCopy(b *testing.B) {
	t := benchTable(benchIDs())
	for range b.N {
		a := gatherAck{ok: true, shadow: t.Copy(0, 1, time.Second)}
		b.SetBytes(int64(len(a.append(nil))))
	}
}

// BenchmarkTakeOver is a new leader's cost of bringing three shadows together.
func BenchmarkTakeOver(b *testing.B) {
	t := benchTable(benchIDs())
	for now := time.Duration(0); now < time.Minute; now += TickEvery {
		t.Tick(now, true)
	}
	recs := make([]Record, 0, benchLeases)
	for _, id := range benchIDs() {
		recs = append(recs, Record{ID: id, TTL: 10 * time.Second})
	}
	for range b.N {
		b.StopTimer()
		l := newLedger(t, nil, time.Minute)
		l.load(recs, nil, 0)
		shadow := t.Copy(0, 1, time.Minute)
		b.StartTimer()
		g := newGathering([]answered{{Shadow: shadow, at: time.Minute}, {Shadow: shadow, at: time.Minute}, {Shadow: shadow, at: time.Minute, self: true}}, 3, time.Minute)
		g.merge(l)
		t.TakeOver(g.outage, time.Minute, time.Minute, func(id muster.LeaseID, own time.Duration) time.Duration {
			return g.heard(l.records[id], own)
		})
		g.settle(l)
		l.armAll(time.Minute)
	}
}
