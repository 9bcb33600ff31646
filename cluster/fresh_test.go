package cluster

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFreshnessKeepsItsPromises(t *testing.T) {
	var f freshness
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	check := func(when string, want time.Time, wantReady bool) {
		t.Helper()
		if got, ready := f.get(); !got.Equal(want) || ready != wantReady {
			t.Errorf("%s: as of %v, ready %v, want %v, %v", when, got.Sub(start), ready, want.Sub(start), wantReady)
		}
	}
	f.promise(10, at(1))
	f.promise(20, at(2))
	if next := f.keep(9); next != 10 {
		t.Errorf("the next index is %d, want 10", next)
	}
	check("nothing applied", time.Time{}, false)
	if next := f.keep(15); next != 20 {
		t.Errorf("the next index is %d, want 20", next)
	}
	check("the first applied", at(1), true)
	f.promise(12, at(0))
	if next := f.keep(20); next != 0 {
		t.Errorf("the next index is %d, want none", next)
	}
	check("all applied, an old answer last", at(2), true)
	for i := range 10 * maxPending {
		f.promise(100+uint64(i), at(3+i))
	}
	if f.keep(100); len(f.pending) > maxPending {
		t.Errorf("%d answers are kept", len(f.pending))
	}
	check("the oldest of many", at(3), true)
	f.keep(100 + 10*maxPending)
	check("all of many", at(2+10*maxPending), true)
}

func TestRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		r := newRounds(func(context.Context) (int64, error) {
			n := runs.Add(1)
			<-time.NewTimer(time.Second).C
			return n, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		go r.run(ctx)
		got := make(chan int64, 100)
		ask := func() {
			n, err := r.do(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- n
		}
		go ask()
		synctest.Wait() // the first round is under way
		for range 50 {
			go ask() // these must not be served by it
		}
		synctest.Wait()
		if n := <-got; n != 1 {
			t.Errorf("the first caller was served by round %d", n)
		}
		for range 50 {
			if n := <-got; n != 2 {
				t.Fatalf("a caller that came during round 1 was served by round %d, want 2", n)
			}
		}
		if n := runs.Load(); n != 2 {
			t.Errorf("%d rounds, want 2", n)
		}
		cancel()
		synctest.Wait()
		if _, err := r.do(t.Context()); !errors.Is(err, errStopped) {
			t.Errorf("after the end: %v, want errStopped", err)
		}
	})
}
