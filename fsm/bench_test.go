package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// benchInstance is an instance as one is mostly registered.
func benchInstance(service, id int) *muster.Instance {
	return with(instance(fmt.Sprintf("service-%04d", service), fmt.Sprintf("instance-%06d", id)), func(i *muster.Instance) {
		i.Address = fmt.Sprintf("10.%d.%d.%d", id>>16, id>>8&255, id&255)
		i.Version, i.Zone, i.Tags = "1.4.2", "eu-1a", []string{"canary"}
		i.Meta = map[string]string{"team": "pay", "commit": "0123456789abcdef"}
	})
}

// registered is a machine with n instances in services of 100.
func registered(b testing.TB, n int) *machine {
	m := newMachine(b)
	for from := 0; from < n; from += 500 {
		var ops []fsm.Op
		for k := from; k < min(n, from+500); k++ {
			ops = append(ops, fsm.Register{Instance: benchInstance(k/100, k)})
		}
		m.raw(ops...)
		m.log = nil
	}
	return m
}

// BenchmarkRegister: new instances, and identical ones, 100 operations an entry.
func BenchmarkRegister(b *testing.B) {
	for _, kind := range []string{"new", "identical", "changed"} {
		b.Run(kind, func(b *testing.B) {
			m := registered(b, 20_000)
			var logs []*raft.Log
			for from := 0; from < b.N; from += 100 {
				var ops []fsm.Op
				for k := from; k < min(b.N, from+100); k++ {
					i := benchInstance(k%20_000/100, k%20_000)
					switch kind {
					case "new":
						i = benchInstance(1000+k/100%9000, k)
					case "changed":
						i.Version = fmt.Sprint(k / 20_000)
					}
					ops = append(ops, fsm.Register{Instance: i})
				}
				logs = append(logs, m.entry(ops...))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, l := range logs {
				m.fsm.Apply(l)
			}
		})
	}
}

// BenchmarkPack: what the leader pays to pack an operation it has decoded once.
func BenchmarkPack(b *testing.B) {
	m := newMachine(b)
	ops := make([][]byte, 100)
	for n := range ops {
		ops[n] = fsm.Encode(fsm.Register{Instance: benchInstance(0, n)})
	}
	b.ReportAllocs()
	for n := 0; n < b.N; n += len(ops) {
		m.fsm.Pack(ops, epoch2026)
	}
}

// BenchmarkExpire: 5,000 of 100,000 leases in one operation.
func BenchmarkExpire(b *testing.B) {
	m := registered(b, 100_000)
	for b.Loop() {
		b.StopTimer()
		for k := 0; k < fsm.MaxLeases; k += 500 {
			var ops []fsm.Op
			for n := range 500 {
				ops = append(ops, fsm.Register{Instance: benchInstance((k+n)/100, k+n)})
			}
			m.raw(ops...)
		}
		m.log = nil
		o := fsm.Expire{Term: m.term}
		for k := range fsm.MaxLeases {
			i := benchInstance(k/100, k)
			id, _ := m.fsm.LeaseOf(key(i.Service, i.ID))
			l, _ := m.fsm.Lease(id)
			o.Leases = append(o.Leases, fsm.LeaseGen{ID: id, Generation: l.Generation})
		}
		l := m.entry(o)
		b.StartTimer()
		m.fsm.Apply(l)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/fsm.MaxLeases, "µs/lease")
}

// BenchmarkView: reads, of one service and of the list.
func BenchmarkView(b *testing.B) {
	m := registered(b, 100_000)
	k := muster.ServiceKey{Namespace: "default", Service: "service-0500"}
	b.Run("view", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if m.fsm.View(k) == nil {
					b.Error("no view")
				}
			}
		})
	})
	b.Run("services", func(b *testing.B) {
		for b.Loop() {
			m.fsm.Services("default", "service-05")
		}
	})
	b.Run("lease", func(b *testing.B) {
		id, _ := m.fsm.LeaseOf(muster.InstanceKey{Namespace: "default", Service: "service-0500", ID: "instance-050000"})
		for b.Loop() {
			m.fsm.Lease(id)
		}
	})
}

// BenchmarkFootprint: 100,000 instances in 1,000 services, live on the heap.
func BenchmarkFootprint(b *testing.B) {
	const n = 100_000
	var snapshot []byte
	b.Run("registered", func(b *testing.B) {
		for b.Loop() {
			before := heap()
			m := registered(b, n)
			b.ReportMetric(float64(heap()-before)/n, "B/instance")
			snapshot = snapshotOf(b, m.fsm)
		}
		b.ReportMetric(float64(len(snapshot))/n, "snapshotB/instance")
	})
	b.Run("reloaded", func(b *testing.B) {
		for b.Loop() {
			before := heap()
			f := reload(b, snapshot)
			b.ReportMetric(float64(heap()-before)/n, "B/instance")
			runtime.KeepAlive(f)
		}
	})
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// BenchmarkSnapshot: taking one (on raft's goroutine), writing it, reading it.
func BenchmarkSnapshot(b *testing.B) {
	m := registered(b, 100_000)
	b.Run("take", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.fsm.Snapshot(); err != nil {
				b.Fatal(err)
			}
		}
	})
	bytesOf := snapshotOf(b, m.fsm)
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(bytesOf)))
		for b.Loop() {
			if _, err := m.fsm.Backup().WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(bytesOf)))
		f := newMachine(b).fsm
		for b.Loop() {
			if err := f.Restore(io.NopCloser(bytes.NewReader(bytesOf))); err != nil {
				b.Fatal(err)
			}
		}
	})
	// A write after a snapshot pays for the chunks of leases that it shares.
	b.Run("register beside", func(b *testing.B) {
		at := time.Duration(0)
		for n := 0; b.Loop(); n++ {
			b.StopTimer()
			if _, err := m.fsm.Snapshot(); err != nil {
				b.Fatal(err)
			}
			l := m.entry(fsm.Register{Instance: benchInstance(n%1000, n%1000*100)})
			m.log = nil
			at += time.Second
			b.StartTimer()
			m.fsm.Apply(l)
		}
	})
}
