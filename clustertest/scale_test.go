package clustertest_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

var scaleInstances = flag.Int("scale", 10_000, "how many instances TestScale registers, in ten steps")

const (
	scaleTTL     = 10 * time.Second
	scaleService = 100 // instances of a service
	scaleBatch   = 1000
	// scaleSlots is how many parts the crowd beats in, a tenth of a second each: all
	// beat once in 3.3 s, three times a TTL.
	scaleSlots = 33
)

// TestScale registers -scale instances with leases of 10 s in ten steps, and has them
// beat, fall silent, change leaders, and be saved and restored: against the real state
// machine and the real keepers of three nodes, in virtual time, without disk and
// network. With -v it prints what each step cost; docs/scale.md says what that means.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as muster server does
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &scale{t: t, ctx: ctx, wg: &wg, base: liveHeap()}
		s.c = newCrowd(t)
		for _, n := range s.c.nodes {
			wg.Go(func() { _ = n.keeper.Run(ctx) })
		}
		s.stop = s.c.lead(ctx, s.c.nodes[0], &wg)
		<-s.c.nodes[0].took
		t.Logf("%9s | %10s %10s %8s | %10s %10s | %11s %9s", "instances", "register", "B/instance", "B/shadow", "beat alone", "in batches", "idle second", "slowest")
		for range 10 {
			s.step(max(*scaleInstances/10, scaleService))
		}
		s.expireSome()
		s.changeLeader()
		s.allSilent()
		s.saveAndRestore()
		s.stop()
	})
}

// scale is the course of TestScale.
type scale struct {
	t    *testing.T
	ctx  context.Context
	wg   *sync.WaitGroup
	c    *crowd
	stop func() // the leading
	base uint64
	keys []muster.InstanceKey
	ids  []muster.LeaseID
	next int // where the next slot of beats begins
}

func scaleInstance(n int) *muster.Instance {
	return &muster.Instance{
		Namespace: "default", Service: fmt.Sprintf("service-%05d", n/scaleService), ID: fmt.Sprintf("instance-%07d", n),
		Address: fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255), Ports: map[string]int{"http": 8080},
		Version: "1.4.2", Zone: "eu-1a", Tags: []string{"canary"},
		Meta: map[string]string{"team": "pay", "commit": "0123456789abcdef"},
		TTL:  muster.TTL(scaleTTL), Weight: 100,
	}
}

// liveHeap is what is in use.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// register adds n instances, in entries of 500.
func (s *scale) register(n int) {
	for ; n > 0; n -= 500 {
		var ops []fsm.Op
		first := len(s.keys)
		for k := range min(n, 500) {
			ops = append(ops, fsm.Register{Instance: scaleInstance(first + k)})
		}
		for k, r := range s.c.apply(ops...) {
			if r.Err != nil {
				s.t.Fatalf("registering the %dth: %v", first+k, r.Err)
			}
			s.keys = append(s.keys, s.known(first+k))
		}
		for _, k := range s.keys[first:] {
			id, ok := s.c.state.LeaseOf(k)
			if !ok {
				s.t.Fatalf("%v has no lease", k)
			}
			s.ids = append(s.ids, id)
		}
	}
}

// known is the name of the nth instance, of the state's own texts.
func (s *scale) known(n int) muster.InstanceKey {
	want := scaleInstance(n)
	v := s.c.state.View(muster.ServiceKey{Namespace: want.Namespace, Service: want.Service})
	if v == nil || v.Find(want.ID) == nil {
		s.t.Fatalf("%s is not in the state", want.ID)
	}
	i := v.Find(want.ID)
	return muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}
}

// own is what the test itself holds.
func (s *scale) own() uint64 {
	return uint64(cap(s.keys))*uint64(unsafe.Sizeof(muster.InstanceKey{})) + uint64(cap(s.ids))*uint64(unsafe.Sizeof(muster.LeaseID(0)))
}

// pass lets time pass in slots of 100 ms, in each of which the next part of the crowd
// beats; those of whom silent says so do not.
func (s *scale) pass(d time.Duration, beat func(from, to int)) {
	for ; d > 0; d -= 100 * time.Millisecond {
		n := (len(s.ids) + scaleSlots - 1) / scaleSlots
		if s.next >= len(s.ids) {
			s.next = 0
		}
		beat(s.next, min(s.next+n, len(s.ids)))
		s.next += n
		time.Sleep(100 * time.Millisecond)
	}
}

// beatBatches beats for ids[from:to] in requests of 1,000 leases.
func (s *scale) beatBatches(from, to int) { s.beatSome(from, to, func(int) bool { return true }) }

func (s *scale) beatSome(from, to int, who func(n int) bool) {
	names := make([]lease.Name, 0, scaleBatch)
	send := func() {
		if len(names) > 0 {
			s.beat(names)
			names = names[:0]
		}
	}
	for n := from; n < to; n++ {
		if who(n) {
			if names = append(names, lease.Name{Lease: s.ids[n]}); len(names) == scaleBatch {
				send()
			}
		}
	}
	send()
}

// beatSingly beats for each of ids[from:to] by its name, in a request of its own.
func (s *scale) beatSingly(from, to int) {
	var wg sync.WaitGroup
	for n := from; n < to; n++ {
		wg.Go(func() { s.beat([]lease.Name{{Instance: s.keys[n]}}) })
	}
	wg.Wait()
}

func (s *scale) beat(names []lease.Name) {
	a, err := s.c.leader.Load().keeper.Beat(s.ctx, names)
	if err != nil {
		s.t.Errorf("a heartbeat: %v", err)
		return
	}
	for n, r := range a.Results {
		if r.State != lease.BeatRenewed {
			s.t.Errorf("the heartbeat of %v was answered %d", names[n], r.State)
			return
		}
	}
}

// step adds n instances and measures what they cost, and what all cost together.
func (s *scale) step(n int) {
	s.c.takeSlowest()
	registered := spent(func() { s.register(n) })
	slowest := s.c.takeSlowest()
	all := len(s.ids)

	heap := liveHeap() - s.base - s.own()
	table := lease.NewTable(0)
	for _, id := range s.ids {
		table.Apply(id.Index(), []lease.Change{{Record: lease.Record{ID: id}, Heard: true}}, 0)
	}
	tables := liveHeap() - s.base - s.own() - heap
	runtime.KeepAlive(table)

	s.pass(scaleSlots*100*time.Millisecond, s.beatBatches)
	idle := spent(func() { time.Sleep(time.Second) })
	batches := spent(func() { s.pass(scaleSlots*100*time.Millisecond, s.beatBatches) })
	alone := 0
	single := spent(func() {
		s.pass(300*time.Millisecond, func(from, to int) {
			s.beatSingly(from, to)
			alone += to - from
		})
	})
	s.t.Logf("%9d | %10s %10.0f %8.0f | %10s %10s | %11s %9s", all, registered.per(n), float64(heap-2*tables)/float64(all), float64(tables)/float64(all),
		single.per(alone), batches.per(all), idle.cpu.Round(10*time.Microsecond), slowest.Round(10*time.Microsecond))
	if gone := s.c.gone.Load(); gone != 0 {
		s.t.Fatalf("%d leases ended though all beat", gone)
	}
}

// expireSome lets one in a hundred fall silent, all at once.
func (s *scale) expireSome() {
	silent := func(n int) bool { return n%scaleService == 7 }
	s.beatSome(0, len(s.ids), silent) // together, and for the last time
	// The others beat until just before the end, so that only the end is measured.
	others := func(from, to int) { s.beatSome(from, to, func(n int) bool { return !silent(n) }) }
	s.pass(scaleTTL-500*time.Millisecond, others)
	before := s.c.gone.Load()
	s.c.takeSlowest()
	took := spent(func() { time.Sleep(900 * time.Millisecond) })
	ended, want := int(s.c.gone.Load()-before), len(s.ids)/scaleService
	if ended != want || before != 0 {
		s.t.Errorf("%d leases ended, and %d before, want %d", ended, before, want)
	}
	s.t.Logf("1 %% silent at once: %d ended in %s of CPU, %s each; the longest entry %s", ended, took.cpu.Round(time.Millisecond), took.per(ended), s.c.takeSlowest().Round(10*time.Microsecond))
	keys, ids := s.keys[:0], s.ids[:0]
	for n := range s.ids {
		if !silent(n) {
			keys, ids = append(keys, s.keys[n]), append(ids, s.ids[n])
		}
	}
	s.keys, s.ids = keys, ids
}

// changeLeader has another node take all leases over.
func (s *scale) changeLeader() {
	s.pass(2*scaleTTL, s.beatBatches)
	s.c.traffic["gather"].Store(0)
	s.stop()
	next := s.c.nodes[1]
	var t takenOver
	took := spent(func() {
		s.stop = s.c.lead(s.ctx, next, s.wg)
		t = <-next.took
	})
	if t.kept != int64(len(s.ids)) || t.full != 0 {
		s.t.Errorf("the new leader took %d leases over as they were and gave %d a full ttl, want %d and 0", t.kept, t.full, len(s.ids))
	}
	s.t.Logf("another leader: %d leases taken over in %s (%s of CPU), %.1f bytes a lease and voter", t.kept,
		took.wall.Round(time.Millisecond), took.cpu.Round(time.Millisecond), float64(s.c.traffic["gather"].Load())/float64(2*len(s.ids)))
	before := s.c.gone.Load()
	s.pass(2*scaleTTL, s.beatBatches)
	if s.c.gone.Load() != before {
		s.t.Errorf("%d leases ended after the leader changed, though all beat", s.c.gone.Load()-before)
	}
}

// allSilent has everybody fall silent, and come back: the governor holds them.
func (s *scale) allSilent() {
	before := s.c.gone.Load()
	s.c.takeSlowest()
	keeper := s.c.leader.Load().keeper
	held := spent(func() { time.Sleep(scaleTTL + 2*time.Second) })
	n := keeper.Suspects()
	lost := int(s.c.gone.Load() - before)
	if n+lost < len(s.ids) || lost > len(s.ids)/5 {
		s.t.Errorf("of %d silent leases %d are held and %d ended", len(s.ids), n, lost)
	}
	s.t.Logf("all silent: %d held, %d ended in %s of CPU, %s each; the longest entry %s", n, lost,
		held.cpu.Round(time.Millisecond), held.per(n+lost), s.c.takeSlowest().Round(10*time.Microsecond))
	back := spent(func() {
		s.pass(scaleSlots*100*time.Millisecond, func(from, to int) {
			s.beatSome(from, to, func(n int) bool { _, ok := s.c.state.Lease(s.ids[n]); return ok })
		})
		time.Sleep(time.Second)
	})
	if left := keeper.Suspects(); left != 0 {
		s.t.Errorf("%d are still held though all beat again", left)
	}
	s.t.Logf("all back: in %s of CPU, %s each", back.cpu.Round(time.Millisecond), back.per(n))
}

// saveAndRestore writes a snapshot and reads it into another state machine.
func (s *scale) saveAndRestore() {
	pause := spent(func() {
		if _, err := s.c.state.Snapshot(); err != nil {
			s.t.Fatal(err)
		}
	})
	var file bytes.Buffer
	write := spent(func() {
		if _, err := s.c.state.Backup().WriteTo(&file); err != nil {
			s.t.Fatal(err)
		}
	})
	other, err := fsm.New(fsm.Config{})
	if err != nil {
		s.t.Fatal(err)
	}
	size := file.Len()
	read := spent(func() {
		if err := other.Restore(io.NopCloser(&file)); err != nil {
			s.t.Fatal(err)
		}
	})
	if got, index := other.Hash(); index != s.c.state.Index() {
		s.t.Errorf("the restored state is of index %d, want %d", index, s.c.state.Index())
	} else if want, _ := s.c.state.Hash(); got != want {
		s.t.Error("the restored state is another")
	}
	live := 0
	for range s.c.state.Leases {
		live++
	}
	s.t.Logf("a snapshot: %.1f MiB, %d bytes an instance; the pause %s, written in %s of CPU, read in %s",
		float64(size)/(1<<20), size/max(live, 1), pause.wall.Round(10*time.Microsecond), write.cpu.Round(time.Millisecond), read.cpu.Round(time.Millisecond))
}
