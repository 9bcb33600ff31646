package balancer_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// nodes are balancers that exchange what they learn.
type nodes []*balancer.Balancer

func newNodes(t *testing.T, n int) nodes {
	t.Helper()
	var all nodes
	for k := range n {
		all = append(all, newBalancer(t, balancer.Config{Node: fmt.Sprint("n", k), Random: seeded(uint64(k))}))
	}
	return all
}

// exchange lets every node tell every other one, once; lose says which packets get
// lost. It returns how many there were.
func (all nodes) exchange(t *testing.T, now time.Time, lose func(from, to int) bool) int {
	t.Helper()
	sum := 0
	for from, b := range all {
		for _, packet := range b.Export(now) {
			sum++
			if len(packet) > balancer.MaxPacket {
				t.Fatalf("a packet of %d bytes", len(packet))
			}
			for to, other := range all {
				if lose != nil && lose(from, to) {
					continue
				}
				if err := other.Import(now, fmt.Sprint("n", from), packet); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return sum
}

// TestEjectionsSpread: what one node finds out, the others know after the next
// exchange, and they let the instance in again when it is well.
func TestEjectionsSpread(t *testing.T) {
	t.Parallel()
	all, v := newNodes(t, 3), service(6)
	pick(t, all[1], epoch, &balancer.Request{View: v}) // the third never picked
	fail(t, all[0], epoch, v, "i000002", 5)
	if n := all.exchange(t, epoch, nil); n != 1 {
		t.Errorf("%d packets, want 1", n)
	}
	now := epoch.Add(time.Second)
	for k, b := range all {
		if n := picks(t, b, now, balancer.Request{View: v}, 600)["i000002"]; n != 0 {
			t.Errorf("node %d picked it %d times", k, n)
		}
		i := b.Stats(now, v).Instances[2]
		if !i.Ejected || i.Failures != 5 || i.Until.Sub(epoch) != 10*time.Second {
			t.Errorf("node %d: got %+v", k, i)
		}
	}
	now = epoch.Add(11 * time.Second)
	for _, b := range all {
		b.Stats(now, v) // half-open
	}
	report(t, all[2], now, v, "i000002", balancer.Outcomes{Successes: 3})
	all.exchange(t, now, nil)
	for k, b := range all {
		if i := b.Stats(now, v).Instances[2]; i.State != balancer.Closed || i.Strikes != 1 {
			t.Errorf("node %d: got %+v", k, i)
		}
	}
}

// TestOutcomesAddUp: failures of which every node sees too few are many together.
func TestOutcomesAddUp(t *testing.T) {
	t.Parallel()
	all, v := newNodes(t, 3), service(6)
	for _, b := range all {
		fail(t, b, epoch, v, "i000004", 2)
		if i := b.Stats(epoch, v).Instances[4]; i.State != balancer.Closed {
			t.Fatalf("alone: %+v", i)
		}
	}
	all.exchange(t, epoch, nil)
	for k, b := range all {
		if i := b.Stats(epoch, v).Instances[4]; !i.Ejected || i.Failures != 6 {
			t.Errorf("node %d: got %+v", k, i)
		}
	}
	if got, want := all[0].Stats(epoch, v).Instances[4].Failures, uint64(6); got != want {
		t.Errorf("got %d failures, want %d", got, want)
	}
	for round := range 20 { // and nobody passes on what he was told
		all.exchange(t, epoch.Add(time.Duration(round)*time.Second), nil)
	}
	if got := all[1].Stats(epoch, v).Instances[4].Failures; got != 6 {
		t.Errorf("after many exchanges: %d failures, want 6", got)
	}
	if n := all.exchange(t, epoch.Add(time.Minute), nil); n != 0 {
		t.Errorf("nothing changed, and %d packets were sent", n)
	}
}

// TestALostPacketIsMadeGood: an ejection is told more than once.
func TestALostPacketIsMadeGood(t *testing.T) {
	t.Parallel()
	all, v := newNodes(t, 2), service(6)
	fail(t, all[0], epoch, v, "i000002", 5)
	all.exchange(t, epoch, func(int, int) bool { return true })
	if i := all[1].Stats(epoch, v).Instances[2]; i.Ejected {
		t.Fatal("the packet was lost, and yet it arrived")
	}
	now := epoch.Add(time.Second)
	all.exchange(t, now, nil)
	if i := all[1].Stats(now, v).Instances[2]; !i.Ejected || i.Until.Sub(now) != 9*time.Second {
		t.Errorf("got %+v", i)
	}
}

// TestLatencyIsShared, for who never sent a request there.
func TestLatencyIsShared(t *testing.T) {
	t.Parallel()
	all, v := newNodes(t, 2), service(6)
	report(t, all[0], epoch, v, "i000001", balancer.Outcomes{Successes: 1, Latency: 80 * time.Millisecond})
	all.exchange(t, epoch, nil)
	if got := time.Duration(all[1].Stats(epoch, v).Instances[1].Latency); got < 79*time.Millisecond || got > 81*time.Millisecond {
		t.Errorf("got %s, want 80ms", got)
	}
}

// TestManyInstances: packets stay small, and what does not fit into one exchange
// comes with the next.
func TestManyInstances(t *testing.T) {
	t.Parallel()
	all := newNodes(t, 2)
	var views []*muster.View
	for s := range 40 {
		v := service(100)
		v.Service = fmt.Sprintf("service-%03d-with-rather-a-long-name", s)
		views = append(views, v)
		for _, i := range v.Instances {
			report(t, all[0], epoch, v, i.ID, balancer.Outcomes{Successes: 7, Failures: 1, Latency: time.Millisecond})
		}
	}
	rounds, packets := 0, 0
	for n := -1; n != 0; rounds++ {
		if rounds > 100 {
			t.Fatal("it does not end")
		}
		n = all.exchange(t, epoch, nil)
		packets += n
	}
	for _, v := range views {
		for _, i := range all[1].Stats(epoch, v).Instances {
			if i.Successes != 7 || i.Failures != 1 {
				t.Fatalf("%s %s: got %+v", v.Service, i.ID, i)
			}
		}
	}
	if packets > 150 {
		t.Errorf("%d packets for 4000 instances", packets)
	}
	t.Logf("%d packets in %d exchanges", packets, rounds)
}

func TestLongNamesFit(t *testing.T) {
	t.Parallel()
	all := newNodes(t, 2)
	long := ""
	for range 16 {
		long += "abcdefgh"
	}
	v := service(20, func(k int, i *muster.Instance) { i.ID = long[:126] + fmt.Sprintf("%02d", k) })
	v.Namespace, v.Service = long, long
	for _, i := range v.Instances {
		report(t, all[0], epoch, v, i.ID, balancer.Outcomes{Failures: balancer.MaxOutcomes, Latency: time.Hour})
	}
	all.exchange(t, epoch, nil)
	for _, i := range all[1].Stats(epoch, v).Instances {
		if i.Failures != balancer.MaxOutcomes {
			t.Fatalf("got %+v", i)
		}
	}
}

// entry is a hand-made packet with one entry.
func packet(namespace, service, id string, numbers ...uint64) []byte {
	e := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), id)
	for n, v := range numbers {
		e = protowire.AppendVarint(protowire.AppendTag(e, protowire.Number(n+2), protowire.VarintType), v)
	}
	g := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), namespace)
	g = protowire.AppendString(protowire.AppendTag(g, 2, protowire.BytesType), service)
	g = protowire.AppendBytes(protowire.AppendTag(g, 3, protowire.BytesType), e)
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), g)
}

func TestPacketsAreChecked(t *testing.T) {
	t.Parallel()
	good := packet("default", "web", "i000000", 0, 5, 0, 1, 10_000, 1)
	for _, c := range []struct {
		name   string
		packet []byte
		ok     bool
	}{
		{"good", good, true},
		{"empty", nil, true},
		{"with a field of a later version", protowire.AppendVarint(protowire.AppendTag(good[:len(good):len(good)], 9, protowire.VarintType), 1), true},
		{"cut", good[:len(good)-1], false},
		{"too long", append(good[:len(good):len(good)], make([]byte, balancer.MaxPacket)...), false},
		{"no id", packet("default", "web", "", 1), false},
		{"a bad id", packet("default", "web", "a/b", 1), false},
		{"a bad service", packet("default", "we b", "a", 1), false},
		{"a service not folded", packet("default", "Web", "a", 1), false},
		{"no namespace", packet("", "web", "a", 1), false},
		{"noise", []byte{0xff, 0xff, 0xff}, false},
	} {
		b := newBalancer(t, balancer.Config{Node: "n1"})
		if err := b.Import(epoch, "n2", c.packet); (err == nil) != c.ok {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

// TestAPacketCannotDoMuch: an ejection that is told is as bounded as one that is
// decided here, and a node does not listen to itself.
func TestAPacketCannotDoMuch(t *testing.T) {
	t.Parallel()
	v := service(10)
	b := newBalancer(t, balancer.Config{Node: "n1"})
	for _, i := range v.Instances {
		if err := b.Import(epoch, "n2", packet("default", "web", i.ID, 0, 0, 0, 1, 1<<60, 1<<60)); err != nil {
			t.Fatal(err)
		}
	}
	st := b.Stats(epoch, v)
	if st.Ejected != 5 || st.Panic {
		t.Errorf("%d are ejected (panic %v), want 5", st.Ejected, st.Panic)
	}
	if left := st.Instances[0].Until.Sub(epoch); left > muster.MaxEjectionTime {
		t.Errorf("an ejection of %s", left)
	}
	self := newBalancer(t, balancer.Config{Node: "n2"})
	if err := self.Import(epoch, "n2", packet("default", "web", "i000000", 0, 5, 0, 1, 10_000, 1)); err != nil {
		t.Fatal(err)
	}
	if i := self.Stats(epoch, v).Instances[0]; i.Failures != 0 || i.Ejected {
		t.Errorf("it listened to itself: %+v", i)
	}
	off := newBalancer(t, balancer.Config{Node: "n3"})
	never := with(service(10), func(s *muster.Settings) { s.MaxEjected = 0 })
	pick(t, off, epoch, &balancer.Request{View: never})
	if err := off.Import(epoch, "n2", packet("default", "web", "i000000", 0, 50, 0, 1, 10_000, 1)); err != nil {
		t.Fatal(err)
	}
	if i := off.Stats(epoch, never).Instances[0]; i.State != balancer.Closed {
		t.Errorf("ejection is off: %+v", i)
	}
}

// TestAClientExportsNothing: without a node's id nothing is kept to be told.
func TestAClientExportsNothing(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	v := service(3)
	fail(t, b, epoch, v, "i000000", 5)
	if p := b.Export(epoch); len(p) != 0 {
		t.Errorf("got %d packets", len(p))
	}
}

// FuzzImport feeds any bytes: none may panic, make an ejection last longer than
// allowed, or make a node say what it was told.
func FuzzImport(f *testing.F) {
	f.Add(packet("default", "web", "i000000", 3, 5, 1000, 1, 10_000, 1))
	f.Add(packet("default", "web", "i000001", 0, 0, 0, 2, 0, 0))
	f.Add(packet("default", "web", "i000001", 1<<63, 1<<63, 1<<63, 1<<63, 1<<63, 1<<63))
	f.Add(append(packet("default", "web", "i000002", 1), packet("other", "api", "x", 2)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := newBalancer(t, balancer.Config{Node: "n1"})
		v := service(4)
		err := n.Import(epoch, "n2", b)
		if err == nil && len(b) > balancer.MaxPacket {
			t.Errorf("took %d bytes", len(b))
		}
		st := n.Stats(epoch, v)
		if st.Ejected > 2 {
			t.Errorf("%d of 4 are ejected", st.Ejected)
		}
		for _, i := range st.Instances {
			if i.Until.Sub(epoch) > muster.MaxEjectionTime || i.FailureRate < 0 || i.FailureRate > 100 || i.Latency < 0 {
				t.Errorf("got %+v", i)
			}
		}
		pick(t, n, epoch, &balancer.Request{View: v})
		for _, p := range n.Export(epoch) {
			if len(p) > balancer.MaxPacket {
				t.Errorf("a packet of %d bytes", len(p))
			}
			if err := newBalancer(t, balancer.Config{Node: "n3"}).Import(epoch, "n1", p); err != nil {
				t.Errorf("it cannot read what it wrote: %v", err)
			}
		}
	})
}
