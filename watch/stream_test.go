package watch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/watch"
)

func TestSnapshotThenChanges(t *testing.T) {
	b := newBench(t, watch.Config{})
	b.put("web", "api")
	b.put("other")
	s := b.open(services("web", "API", "web", "ghost"))
	expect(t, s, "snapshot api:1", "snapshot ghost:0", "snapshot web:1", "synced 2")
	silent(t, s)
	b.put("other")
	silent(t, s)
	b.put("web", "other", "ghost")
	b.write(op{service: "api", id: "i"})
	expect(t, s, "change 4 web/updated ghost/registered", "change 5 api/deregistered")
	silent(t, s)
}

func TestPrefix(t *testing.T) {
	b := newBench(t, watch.Config{})
	b.put("pay-a", "pay-b", "web")
	b.write(op{service: "pay-b", id: "i"})
	pay, all, none := b.open(watch.Spec{Prefix: "PAY-"}), b.open(watch.Spec{}), b.open(watch.Spec{Namespace: "elsewhere"})
	expect(t, pay, "snapshot pay-a:1", "snapshot pay-b:0", "synced 2")
	expect(t, all, "snapshot pay-a:1", "snapshot pay-b:0", "snapshot web:1", "synced 2")
	expect(t, none, "synced 2")
	b.put("web", "pay-c")
	b.put("pa")
	b.put("pay-a")
	expect(t, pay, "change 3 pay-c/registered", "change 5 pay-a/updated")
	expect(t, all, "change 3 web/updated pay-c/registered", "change 4 pa/registered", "change 5 pay-a/updated")
	silent(t, none)
}

// TestPrefixFarBehind: what a stream wants may lie behind much that it does not.
func TestPrefixFarBehind(t *testing.T) {
	b := newBench(t, watch.Config{})
	b.put("pay")
	for range 1500 {
		b.put("noise")
	}
	b.put("pay")
	s := b.open(from(watch.Spec{Prefix: "pay"}, 1))
	if m, ok := s.Ready(); !ok || text(m) != "change 1502 pay/updated" {
		t.Errorf("Ready: got %q, want the change", text(m))
	}
	expect(t, b.open(from(watch.Spec{Prefix: "pay"}, 1)), "change 1502 pay/updated")
}

func TestResumeRepeatsNothing(t *testing.T) {
	b := newBench(t, watch.Config{})
	for range 3 {
		b.put("web", "api")
		b.put("other")
	}
	for _, c := range []struct {
		from uint64
		want []string
	}{
		{0, []string{"change 1 web/registered", "change 3 web/updated", "change 5 web/updated"}},
		{1, []string{"change 3 web/updated", "change 5 web/updated"}},
		{2, []string{"change 3 web/updated", "change 5 web/updated"}},
		{4, []string{"change 5 web/updated"}},
		{5, nil},
		{6, nil},
	} {
		s := b.open(from(services("web"), c.from))
		expect(t, s, c.want...)
		silent(t, s)
	}
	if n := b.metric("propagation_seconds"); n != 0 {
		t.Errorf("%v changes of long ago count as propagation, want none", n)
	}
}

// TestOvertaken: a slow reader is given full views, and one whose services are
// quiet is left alone however much the ring turns.
func TestOvertaken(t *testing.T) {
	for _, spec := range []watch.Spec{services("web"), services("web", "api"), {Prefix: "w"}} {
		b := newBench(t, watch.Config{MaxEvents: 4})
		b.put("web")
		slow, idle := b.open(spec), b.open(spec)
		for _, s := range []*watch.Stream{slow, idle} {
			for next(t, s).Kind != watch.KindSynced {
			}
			silent(t, s)
		}
		for range 20 {
			b.put("noise")
		}
		silent(t, idle)
		b.put("web")
		expect(t, idle, "change 22 web/updated")
		expect(t, slow, "change 22 web/updated")
		for range 3 {
			b.put("web")
		}
		for range 4 {
			b.put("noise")
		}
		for range 2 {
			if len(spec.Services) == 2 {
				expect(t, slow, "resync api:0")
			}
			expect(t, slow, "resync web:1", "synced 29")
			silent(t, slow)
			slow = b.open(from(spec, 24)) // the same, said to a resumed one
		}
		if got := b.metric("resyncs_total"); got != 2 {
			t.Errorf("%+v: got %v resyncs, want 2", spec, got)
		}
	}
}

func TestResumeBeyondTheRing(t *testing.T) {
	b := newBench(t, watch.Config{MaxEvents: 2})
	b.put("web")                         // 1
	b.put("api")                         // 2
	b.write(op{service: "web", id: "i"}) // 3
	for range 5 {
		b.put("noise") // 4-8
	}
	for _, c := range []struct {
		spec watch.Spec
		want []string
	}{
		{from(services("web"), 3), nil},
		{from(services("api"), 2), nil},
		{from(services("api", "web"), 3), nil},
		{from(services("ghost"), 1), nil},
		{from(watch.Spec{Prefix: "w"}, 3), nil},
		{from(services("web"), 2), []string{"resync web:0", "synced 8"}},
		{from(services("api", "web"), 2), []string{"resync api:1", "resync web:0", "synced 8"}},
		{from(watch.Spec{Prefix: "w"}, 2), []string{"resync web:0", "synced 8"}},
		{from(watch.Spec{Prefix: "w"}, 0), []string{"resync web:0", "synced 8"}},
		{from(watch.Spec{Prefix: "no"}, 6), []string{"change 7 noise/updated", "change 8 noise/updated"}},
	} {
		s := b.open(c.spec)
		expect(t, s, c.want...)
		silent(t, s)
	}
	// A service that was forgotten may have been there after the cursor.
	b.write(op{service: "web", forget: true}) // 9
	s := b.open(from(services("web"), 2))
	expect(t, s, "resync web:0", "synced 9")
	s = b.open(from(services("web"), 3))
	silent(t, s)
	b.put("web")
	expect(t, s, "change 10 web/registered")
}

// TestLargeEntry: an entry is told whole or not at all, also one that the ring
// cannot hold.
func TestLargeEntry(t *testing.T) {
	b := newBench(t, watch.Config{MaxEvents: 3})
	one, all := b.open(services("s1")), b.open(watch.Spec{})
	expect(t, one, "snapshot s1:0", "synced")
	expect(t, all, "synced")
	b.put("s1", "s2", "s3")
	expect(t, one, "change 1 s1/registered")
	expect(t, all, "change 1 s1/registered s2/registered s3/registered")
	b.put("s1", "s2", "s3", "s4")
	expect(t, one, "resync s1:1", "synced 2")
	expect(t, all, "resync s1:1", "resync s2:1", "resync s3:1", "resync s4:1", "synced 2")
	b.put("s4")
	b.put("s1")
	expect(t, one, "change 4 s1/updated")
	expect(t, all, "change 3 s4/updated", "change 4 s1/updated")
}

func TestRestore(t *testing.T) {
	b := newBench(t, watch.Config{})
	two := func(s string) []op {
		return []op{{service: s, id: "a", version: "1"}, {service: s, id: "b", version: "1"}}
	}
	b.write(two("web")...)
	b.put("gone")
	web, gone, all := b.open(services("web")), b.open(services("gone")), b.open(watch.Spec{})
	expect(t, web, "snapshot web:2", "synced 2")
	expect(t, gone, "snapshot gone:1", "synced 2")
	expect(t, all, "snapshot gone:1", "snapshot web:2", "synced 2")
	b.write(op{restore: true})
	expect(t, web, "resync web:1", "synced 1.3")
	expect(t, gone, "resync gone:0", "synced 1.3")
	expect(t, all, "resync web:1", "synced 1.3")
	b.put("gone")
	expect(t, gone, "change 1.4 gone/registered")
	expect(t, all, "change 1.4 gone/registered")
	silent(t, web)
	old := b.open(from(services("web"), 2))
	expect(t, old, "resync web:1", "synced 1.4")
}

// TestSnapshotInstalled: a node that got the leader's snapshot cannot tell what
// came in between, and says so only to those who missed something.
func TestSnapshotInstalled(t *testing.T) {
	leader, follower := newReplica(), newBench(t, watch.Config{})
	log := []logEntry{
		{1, []op{{service: "web", id: "i", version: "1"}}},
		{2, []op{{service: "api", id: "i", version: "1"}}},
		{3, []op{{service: "web", id: "i", version: "2"}}},
	}
	leader.apply(log...)
	follower.r.apply(log[:2]...)
	web, api, ahead := follower.open(services("web")), follower.open(services("api")), follower.open(from(services("web"), 2))
	expect(t, web, "snapshot web:1", "synced 2")
	expect(t, api, "snapshot api:1", "synced 2")
	silent(t, ahead)
	follower.r.install(leader, leader.Index(), leader.views, leader.Floor())
	expect(t, web, "resync web:1", "synced 3")
	expect(t, ahead, "resync web:1", "synced 3")
	silent(t, api)
}

// TestNothingIsToldTwiceAfterASnapshot: the views that follow a snapshot's install
// show what was applied since, and that is not told again.
func TestNothingIsToldTwiceAfterASnapshot(t *testing.T) {
	leader, follower := newReplica(), newBench(t, watch.Config{})
	write := func(raft uint64, version string) logEntry {
		return logEntry{raft, []op{{service: "web", id: "i", version: version}}}
	}
	leader.apply(write(1, "1"), write(2, "2"), write(3, "3"))
	follower.r.apply(write(1, "1"))
	for _, s := range []*watch.Stream{follower.open(services("web")), follower.open(watch.Spec{})} {
		expect(t, s, "snapshot web:1", "synced 1")
		defer func() {
			expect(t, s, "resync web:1", "synced 5")
			silent(t, s)
		}()
	}
	follower.r.install(leader, leader.Index(), leader.views, leader.Floor())
	follower.r.apply(write(4, "4"))
	follower.r.apply(write(5, "5"))
}

// TestCursorAhead: a node that is behind tells nothing older than the cursor, and
// goes on behind it.
func TestCursorAhead(t *testing.T) {
	b := newBench(t, watch.Config{})
	b.put("web")
	b.r.confirmed.Store(5)
	named, all := b.open(from(services("web"), 4)), b.open(from(watch.Spec{}, 3))
	silent(t, named)
	silent(t, all)
	for range 5 {
		b.put("web") // 2-6
	}
	expect(t, named, "change 5 web/updated", "change 6 web/updated")
	expect(t, all, "change 4 web/updated", "change 5 web/updated", "change 6 web/updated")
	b.write() // no event: the cursor may be of such an entry
	s := b.open(from(services("web"), 7))
	b.put("web")
	expect(t, s, "change 8 web/updated")
}

func TestCursorGone(t *testing.T) {
	b := newBench(t, watch.Config{})
	b.put("web")
	b.r.confirmed.Store(5)
	for _, c := range []struct {
		name string
		spec watch.Spec
		want muster.Code
	}{
		{"ahead of what is confirmed", from(watch.Spec{}, 6), muster.CodeCursorGone},
		{"within it", from(watch.Spec{}, 5), ""},
		{"an epoch that has not begun", from(watch.Spec{}, muster.MakeIndex(1, 1)), muster.CodeCursorGone},
		{"an epoch that may have begun", from(watch.Spec{}, muster.MakeIndex(1, 3)), ""},
		{"no index", from(watch.Spec{}, muster.MaxIndex+1), muster.CodeCursorGone},
		{"the largest", from(watch.Spec{}, 1<<64-1), muster.CodeCursorGone},
		{"another cluster", watch.Spec{Cluster: "c2"}, muster.CodeCursorGone},
		{"this cluster", watch.Spec{Cluster: "c1"}, ""},
		{"no name", services("web", "a/b"), muster.CodeInvalidName},
		{"no namespace", watch.Spec{Namespace: "-"}, muster.CodeInvalidName},
		{"no prefix", watch.Spec{Prefix: "-a"}, muster.CodeInvalidName},
		{"prefix as long as a name", watch.Spec{Prefix: strings.Repeat("a", muster.MaxNameLen)}, ""},
		{"prefix longer than a name", watch.Spec{Prefix: strings.Repeat("a", muster.MaxNameLen+1)}, muster.CodeInvalidName},
		{"services and prefix", watch.Spec{Services: []string{"web"}, Prefix: "w"}, muster.CodeConflictingField},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := b.hub.Subscribe(t.Context(), c.spec)
			wantCode(t, err, c.want)
			if err == nil {
				s.Close()
			}
		})
	}
	b.r.catching.Store(true)
	_, err := b.hub.Subscribe(t.Context(), watch.Spec{})
	wantCode(t, err, muster.CodeCatchingUp)
}

func TestMostStreams(t *testing.T) {
	b := newBench(t, watch.Config{MaxStreams: 2})
	first := b.open(services("a"))
	b.open(watch.Spec{})
	_, err := b.hub.Subscribe(t.Context(), watch.Spec{})
	wantCode(t, err, muster.CodeOverloaded)
	first.Close()
	first.Close()
	if got := b.metric("watchers"); got != 1 {
		t.Errorf("got %v watchers, want 1", got)
	}
	b.open(services("a"))
}

// TestNothingIsKept: what nobody asks for any more is let go of.
func TestNothingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{MaxEvents: 3})
		var streams []*watch.Stream
		for n := range 10 {
			streams = append(streams, b.open(services(fmt.Sprint("s", n), fmt.Sprint("t", n))), b.open(watch.Spec{Prefix: fmt.Sprint("s", n)}))
		}
		sizes := func(when string, wantTopics, wantGroups int) {
			t.Helper()
			synctest.Wait()
			if topics, groups := b.hub.Sizes(); topics != wantTopics || groups != wantGroups {
				t.Errorf("%s: got %d topics and %d groups, want %d and %d", when, topics, groups, wantTopics, wantGroups)
			}
		}
		for n := range 10 {
			b.put(fmt.Sprint("s", n))
			b.put(fmt.Sprint("x", n))
		}
		sizes("with streams", 22, 10) // the ring holds x8, s9, x9
		for _, s := range streams {
			s.Close()
		}
		for range 3 {
			b.put("y")
		}
		sizes("without streams", 1, 0)
		b.write(op{restore: true})
		sizes("after a restore", 0, 0)
	})
}

// TestBytesAreBounded: what JSON makes longer than it seemed counts as well.
func TestBytesAreBounded(t *testing.T) {
	const most = 100 << 10
	b := newBench(t, watch.Config{MaxBytes: most})
	s := b.open(watch.Spec{})
	for n := range 200 {
		b.write(op{service: "web", id: "i", version: fmt.Sprint(n) + strings.Repeat("<", 2000)})
		if s != nil {
			m := next(t, s)
			if size := len(m.Append(nil, watch.SSE)); m.Kind == watch.KindChange && size < 12_000 {
				t.Fatalf("a change takes %d bytes; the test is to escape", size)
			}
		}
	}
	b.write() // the writer is who trims
	if got := b.metric("ring_bytes"); got > most || got < most/2 {
		t.Errorf("the ring holds %v bytes, want at most %v and not far less", got, most)
	}
	if events := b.metric("ring_events"); events < 4 || events > 10 {
		t.Errorf("the ring holds %v events of about 12 kB, want about 8", events)
	}
}

func TestNextHonoursItsContext(t *testing.T) {
	b := newBench(t, watch.Config{})
	s := b.open(services("web"))
	expect(t, s, "snapshot web:0", "synced")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if _, err := s.Next(ctx); !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
	b.put("web")
	expect(t, s, "change 1 web/registered")
}

func TestNewAndRunRefuse(t *testing.T) {
	r := newReplica()
	if _, err := watch.New(watch.Config{}, watch.Deps{State: r}); err == nil {
		t.Error("New without a cluster: got no error")
	}
	b := newBench(t, watch.Config{})
	b.stop()
	if err := b.hub.Run(t.Context()); err == nil {
		t.Error("second Run: got no error")
	}
}
