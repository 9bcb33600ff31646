package bench

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestMeasureMost: a bounded load ends when its calls are made, and not when time is up.
func TestMeasureMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Load{Clients: 4, Most: 10, Do: func(context.Context, int, int) (int, error) {
			time.Sleep(10 * time.Millisecond)
			return 1, nil
		}}.Measure(t.Context(), time.Hour)
		if s.Ops != 10 || len(s.Took) != 10 || s.Elapsed != 30*time.Millisecond {
			t.Errorf("%d operations in %s", s.Ops, s.Elapsed)
		}
	})
}

// TestMeasure: what is counted is what succeeded, and each client waits for its own
// answers.
func TestMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		s := Load{Clients: 4, Do: func(_ context.Context, client, call int) (int, error) {
			time.Sleep(time.Duration(client+1) * 10 * time.Millisecond)
			if client == 3 {
				return 0, broken
			}
			return 5, nil
		}}.Measure(t.Context(), 120*time.Millisecond)
		// Calls of 10, 20, 30 and 40 ms in 120 ms: 12, 6, 4 and 3, which fail.
		if s.Ops != 5*(12+6+4) || s.Errors != 3 || !errors.Is(s.First, broken) || s.Elapsed != 120*time.Millisecond {
			t.Errorf("got %d operations, %d errors (%v) in %s", s.Ops, s.Errors, s.First, s.Elapsed)
		}
		if s.Quantile(0.5) != 10*time.Millisecond || s.Quantile(0.99) != 30*time.Millisecond || s.Quantile(1) != 30*time.Millisecond {
			t.Errorf("the latencies are %v", s.Took)
		}
		if got := s.PerSecond(); got < 916 || got > 917 {
			t.Errorf("%v operations a second, want 110 in 0.12 s", got)
		}
	})
}

// TestMeasureEnds: a load ends with its context.
func TestMeasureEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := Load{Clients: 2, Do: func(ctx context.Context, _, _ int) (int, error) {
			time.Sleep(300 * time.Millisecond)
			return 1, nil
		}}.Measure(ctx, time.Hour)
		if s.Elapsed != 1200*time.Millisecond || s.Ops != 8 {
			t.Errorf("ended after %s with %d operations, want 1.2s with 8", s.Elapsed, s.Ops)
		}
	})
}

func TestQuantileOfNothing(t *testing.T) {
	if s := (Sample{}); s.Quantile(0.5) != 0 || s.PerSecond() != 0 {
		t.Error("nothing took some time")
	}
}
