package watch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/watch"
)

// heard is what a reader of its own takes from a stream, and when.
type heard struct {
	mu    sync.Mutex
	texts []string    // guarded by mu
	times []time.Time // guarded by mu
	err   error       // guarded by mu; why it ended
}

// listen reads s until it ends, beside the test.
func (b *bench) listen(s *watch.Stream) *heard {
	h := &heard{}
	ctx, cancel := context.WithCancel(b.t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for {
			m, err := s.Next(ctx)
			h.mu.Lock()
			if err != nil {
				h.err = err
				h.mu.Unlock()
				return
			}
			h.texts = append(h.texts, text(m))
			h.times = append(h.times, time.Now())
			h.mu.Unlock()
		}
	})
	b.t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return h
}

// take returns what was heard since the last take.
func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	texts := h.texts
	h.texts, h.times = nil, nil
	return texts
}

func (h *heard) want(t testing.TB, when string, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := h.take(); !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", when, got, want)
	}
}

// TestOthersChangesWakeNobody: while one service changes a thousand times, the
// watchers of another sleep, and those of the one are woken at most every 50 ms
// and miss nothing.
func TestOthersChangesWakeNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{})
		a := []*heard{b.listen(b.open(services("a"))), b.listen(b.open(services("a", "c"))), b.listen(b.open(watch.Spec{Prefix: "a"}))}
		onB := b.listen(b.open(services("b")))
		synctest.Wait()
		for _, h := range append(a, onB) {
			h.take()
		}
		var want []string
		for range 1000 {
			want = append(want, fmt.Sprintf("change %d b/updated", b.put("b")))
			time.Sleep(time.Millisecond)
		}
		want[0] = strings.Replace(want[0], "updated", "registered", 1)
		time.Sleep(time.Second)
		onB.want(t, "b", want...)
		for n, h := range a {
			h.want(t, fmt.Sprint("watcher ", n, " of a"))
		}
		if wakes := b.metric("wakes_total"); wakes != 21 { // at 0, 50, … 1000 ms
			t.Errorf("got %v wakes for a second of changes, want 21", wakes)
		}
		if spurious := b.metric("spurious_wakes_total"); spurious != 0 {
			t.Errorf("got %v wakes for nothing, want none", spurious)
		}
		b.put("a")
		for n, h := range a {
			h.want(t, fmt.Sprint("watcher ", n, " of a"), "change 1001 a/registered")
		}
	})
}

// TestCoalescingIsPerService: a flapping service does not hold up another, nor
// does the pause begin before there was a wake.
func TestCoalescingIsPerService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{})
		both, all := b.listen(b.open(services("a", "b"))), b.listen(b.open(watch.Spec{}))
		synctest.Wait()
		both.take()
		all.take()
		b.put("a")
		both.want(t, "first", "change 1 a/registered")
		all.want(t, "first", "change 1 a/registered")
		time.Sleep(10 * time.Millisecond)
		b.put("a")
		both.want(t, "second of a, put off")
		b.put("b")
		both.want(t, "b takes along what was put off", "change 2 a/updated", "change 3 b/registered")
		all.want(t, "all of a namespace are put off together")
		time.Sleep(39 * time.Millisecond)
		all.want(t, "49 ms after the first")
		time.Sleep(time.Millisecond)
		all.want(t, "50 ms after the first", "change 2 a/updated", "change 3 b/registered")
		if n := b.metric("spurious_wakes_total"); n != 0 {
			t.Errorf("got %v wakes for nothing, want none", n)
		}
		if n := b.metric("coalesced_wakes_total"); n != 2 {
			t.Errorf("got %v wakes put off, want 2", n)
		}
	})
}

// TestViewsNewerThanTheHub: a view can be read before its batch is told. The
// snapshot waits for that, so that its index holds for all its views.
func TestViewsNewerThanTheHub(t *testing.T) {
	for _, spec := range []watch.Spec{services("a", "b"), {}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, watch.Config{})
			b.put("a", "b")
			entry := logEntry{raft: 2, ops: []op{{service: "a", id: "j", version: "1"}}}
			told := b.r.publish(entry) // a shows 2, the hub is at 1
			h := b.listen(b.open(spec))
			h.want(t, "before the batch is told")
			b.r.tell(told)
			h.want(t, "after", "snapshot a:2", "snapshot b:1", "synced 2")

			// What is published before it goes on is not in it either.
			time.Sleep(time.Second)
			first := b.r.publish(logEntry{raft: 3, ops: []op{{service: "a", id: "k", version: "1"}, {service: "c", id: "i", version: "1"}}})
			h = b.listen(b.open(spec))
			h.want(t, "before the batch is told")
			b.r.tell(first)
			b.r.publish(logEntry{raft: 4, ops: []op{{service: "a", id: "l", version: "1"}, {service: "b", id: "i"}}})
			want := []string{"snapshot a:3", "snapshot b:1", "snapshot c:1", "synced 3"}
			if spec.Services != nil {
				want = slices.Delete(want, 2, 3)
			}
			h.want(t, "after", want...)
		})
	}
}

// TestForgottenBeforeTheHubIsTold: what has gone from the state altogether was
// there at the index the hub is at.
func TestForgottenBeforeTheHubIsTold(t *testing.T) {
	for _, spec := range []watch.Spec{services("a"), {}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, watch.Config{})
			b.put("b")
			b.put("a")
			told := b.r.publish(
				logEntry{raft: 3, ops: []op{{service: "a", id: "i"}}},
				logEntry{raft: 4, ops: []op{{service: "a", forget: true}}},
			)
			h := b.listen(b.open(spec))
			h.want(t, "before the batch is told")
			b.r.tell(told)
			want := []string{"snapshot b:1", "synced 4"}
			if spec.Services != nil {
				want[0] = "snapshot a:0"
			}
			h.want(t, "after", want...)
		})
	}
}

// TestReplacedStateWakesAll: a restore is told at once also to those who sleep.
func TestReplacedStateWakesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{})
		b.put("a")
		named, all := b.listen(b.open(services("a"))), b.listen(b.open(watch.Spec{}))
		synctest.Wait()
		named.take()
		all.take()
		b.write(op{restore: true})
		named.want(t, "named", "resync a:0", "synced 1.2")
		all.want(t, "all", "synced 1.2")
	})
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{})
		h := b.listen(b.open(services("a")))
		time.Sleep(14 * time.Second)
		h.want(t, "14 s", "snapshot a:0", "synced")
		b.put("a")
		time.Sleep(14 * time.Second)
		h.want(t, "14 s later", "change 1 a/registered")
		time.Sleep(31 * time.Second)
		h.want(t, "45 s later", "keepalive", "keepalive", "keepalive")
	})
}

func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{KeepAlive: time.Hour})
		h := b.listen(b.open(services("a")))
		b.r.age.Store(int64(2900 * time.Millisecond)) // as long as a change of leader may take
		time.Sleep(2 * time.Second)
		h.want(t, "not yet", "snapshot a:0", "synced")
		b.r.age.Store(int64(4 * time.Second))
		time.Sleep(time.Second)
		h.want(t, "cut off", "stale 4s")
		b.r.age.Store(int64(8 * time.Second))
		late := b.listen(b.open(services("a")))
		time.Sleep(3 * time.Second)
		h.want(t, "4 s later")
		late.want(t, "a stream opened meanwhile", "stale 4s", "snapshot a:0", "synced")
		time.Sleep(2 * time.Second)
		h.want(t, "5 s later", "stale 8s")
		b.r.age.Store(0)
		time.Sleep(20 * time.Second)
		h.want(t, "current again", "stale 0s")
		last := b.listen(b.open(services("a")))
		last.want(t, "a stream opened then", "snapshot a:0", "synced")
	})
}

// TestCursorNobodyCanConfirm: without a leader a stream waits with a cursor ahead
// of its node, and is told as soon as there is one that nothing will come.
func TestCursorNobodyCanConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{})
		b.put("a")
		b.r.noLeader.Store(true)
		h := b.listen(b.open(from(services("a"), 7)))
		b.put("a")
		time.Sleep(time.Minute)
		h.want(t, "no leader", "keepalive", "keepalive", "keepalive", "keepalive")
		b.r.noLeader.Store(false)
		time.Sleep(15 * time.Second)
		h.want(t, "leader")
		h.mu.Lock()
		defer h.mu.Unlock()
		wantCode(t, h.err, muster.CodeCursorGone)
	})
}

func TestGoodbyeIsSpread(t *testing.T) {
	const streams = 2000
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{})
		all := make([]*heard, streams)
		for n := range all {
			all[n] = b.listen(b.open(services(fmt.Sprint("s", n%10))))
		}
		b.open(services("s0")) // does not read
		synctest.Wait()
		start := time.Now()
		var run sync.WaitGroup
		run.Go(b.stop)
		time.Sleep(500 * time.Millisecond)
		index := b.put("s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9")
		_, err := b.hub.Subscribe(t.Context(), watch.Spec{})
		wantCode(t, err, muster.CodeShuttingDown)
		run.Wait()
		if took := time.Since(start); took < 900*time.Millisecond || took > 1100*time.Millisecond {
			t.Errorf("goodbye took %v, want about a second", took)
		}
		synctest.Wait()
		perTenth := map[time.Duration]int{}
		changed := 0
		for n, h := range all {
			h.mu.Lock()
			if !errors.Is(h.err, io.EOF) || h.texts[len(h.texts)-1] != "goodbye" {
				t.Fatalf("stream %d heard %q and ended with %v", n, h.texts, h.err)
			}
			perTenth[h.times[len(h.times)-1].Sub(start)/(100*time.Millisecond)]++
			if slices.ContainsFunc(h.texts, func(s string) bool { return strings.HasPrefix(s, fmt.Sprint("change ", index)) }) {
				changed++
			}
			h.mu.Unlock()
		}
		for tenth, n := range perTenth {
			if n > streams/10+streams/25 {
				t.Errorf("%d of %d goodbyes fall into the %d. tenth of a second", n, streams, tenth+1)
			}
		}
		if changed < streams*2/5 || changed > streams*3/5 {
			t.Errorf("%d of %d streams were told a change that came in the middle, want about half", changed, streams)
		}
	})
}

// TestFewGoodbyes: a node with a handful of streams does not take its time.
func TestFewGoodbyes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, watch.Config{})
		h := b.listen(b.open(watch.Spec{}))
		start := time.Now()
		b.stop()
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("took %v", took)
		}
		h.want(t, "end", "synced", "goodbye")
	})
}
