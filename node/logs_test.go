package node_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/node"
)

// TestLogLevelGoesBack: a level that was set for a while gives way to the configured
// one, unless it was set again meanwhile.
func TestLogLevelGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := node.NewLogLevel(slog.LevelInfo)
		expect := func(level string, until time.Time) {
			t.Helper()
			if got := l.LogLevel(); got.Level != level || got.Configured != "info" || !got.Until.Equal(until) {
				t.Errorf("got %+v, want %s until %s", got, level, until)
			}
		}
		start := time.Now()
		expect("info", time.Time{})
		l.SetLogLevel("debug", time.Minute)
		expect("debug", start.Add(time.Minute))
		if l.Level() != slog.LevelDebug {
			t.Errorf("got the level %s, want debug", l.Level())
		}
		time.Sleep(59 * time.Second)
		expect("debug", start.Add(time.Minute))
		time.Sleep(2 * time.Second)
		expect("info", time.Time{})

		l.SetLogLevel("debug", time.Minute)
		l.SetLogLevel("warn", 0) // for good: the minute is forgotten
		time.Sleep(time.Hour)
		expect("warn", time.Time{})
		l.SetLogLevel("", 0)
		expect("info", time.Time{})

		l.SetLogLevel("debug", time.Minute)
		time.Sleep(30 * time.Second)
		l.SetLogLevel("error", time.Minute)
		time.Sleep(31 * time.Second) // the first minute is over
		expect("error", start.Add(time.Hour+61*time.Second+90*time.Second))
		time.Sleep(30 * time.Second)
		expect("info", time.Time{})
	})
}

// TestRequestInLines: a line that is written for a request names it.
func TestRequestInLines(t *testing.T) {
	var out bytes.Buffer
	level := node.NewLogLevel(slog.LevelInfo)
	log := slog.New(node.Lines(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}), level)).With("name", "n1")
	log.InfoContext(muster.WithRequestID(t.Context(), "r-9"), "asked")
	log.InfoContext(t.Context(), "unasked")
	log.Debug("too much")
	level.SetLogLevel("debug", 0)
	log.Debug("wanted")
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(got) != 3 || !strings.HasSuffix(got[0], "msg=asked name=n1 request_id=r-9") || !strings.HasSuffix(got[1], "msg=unasked name=n1") || !strings.Contains(got[2], "msg=wanted") {
		t.Errorf("got the lines %q", got)
	}
}

// book keeps what was logged, and may be read meanwhile.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func event(cause muster.Cause) *muster.Event {
	return &muster.Event{
		Index: 7, Type: muster.EventExpired, Namespace: "default", Service: "web", ID: "a\nlevel=ERROR", Cause: cause,
		PrevStatus: muster.StatusUp, Actor: "node:n1", Instance: &muster.Instance{Meta: map[string]string{"k": "hidden"}},
	}
}

// TestTransitionLines: the leader writes what failed at level info and the everyday at
// debug, never more lines than a log can bear, and says how many it left out.
func TestTransitionLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, leads := &book{}, true
		level := node.NewLogLevel(slog.LevelInfo)
		lines := node.NewTransitions(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})), level, func() bool { return leads })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { lines.Run(ctx) })
		defer wg.Wait()
		defer cancel()

		lines.Tell(event(muster.CauseRegistered), event(muster.CauseLeaseExpired))
		synctest.Wait()
		got := out.String()
		if want := `level=INFO msg=transition type=expired cause=lease_expired service=default/web index=7 instance="default/web/a\nlevel=ERROR" prev_status=up status="" actor=node:n1` + "\n"; !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("got %q, want the one line %q", got, want)
		}
		leads = false
		lines.Tell(event(muster.CauseLeaseExpired))
		leads = true
		synctest.Wait()
		if out.String() != got {
			t.Errorf("a follower wrote %q", out.String()[len(got):])
		}
		level.SetLogLevel("debug", 0)
		lines.Tell(event(muster.CauseRegistered))
		synctest.Wait()
		if !strings.Contains(out.String(), "level=DEBUG msg=transition type=expired cause=registered") {
			t.Errorf("the everyday is missing at level debug: %q", out.String())
		}
		level.SetLogLevel("", 0)

		time.Sleep(2 * time.Second)
		before := len(out.String())
		many := make([]*muster.Event, 100_000)
		for n := range many {
			many[n] = event(muster.CauseLeaseExpired)
		}
		lines.Tell(many...)
		time.Sleep(2 * time.Second)
		flood := out.String()[before:]
		if n := strings.Count(flood, "msg=transition "); n < 1 || n > 100 || !strings.Contains(flood, "suppressed=999") {
			t.Errorf("a mass loss of %d wrote %d lines:\n%.300s", len(many), n, flood[max(0, len(flood)-300):])
		}

		// What the level keeps out is not left out: nobody is told of it.
		before = len(out.String())
		level.SetLogLevel("warn", 0)
		lines.Tell(many...)
		level.SetLogLevel("", 0)
		late := node.NewTransitions(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})), level, func() bool { return true })
		late.Tell(many[:500]...)
		level.SetLogLevel("warn", 0) // which is not to be known when they were told
		wg.Go(func() { late.Run(ctx) })
		time.Sleep(2 * time.Second)
		if quiet := out.String()[before:]; quiet != "" {
			t.Errorf("at level warn a mass loss wrote %q", quiet)
		}
	})
}
