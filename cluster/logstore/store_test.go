package logstore_test

import (
	"context"
	"errors"
	"io"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster/cluster/logstore"
)

func TestEntriesComeBackAsTheyWere(t *testing.T) {
	path := logPath(t)
	s := open(t, path, logstore.Config{})
	logs := append(entries(1, 20),
		&raft.Log{Index: 21, Term: 7, Type: raft.LogNoop},
		&raft.Log{Index: 22, Term: 7, Type: raft.LogConfiguration, Data: []byte{0}, AppendedAt: time.Now().UTC()},
		&raft.Log{Index: 23, Term: 7, Data: make([]byte, 300<<10), AppendedAt: time.Now()},
	)
	before := make([]raft.Log, len(logs))
	for i, l := range logs {
		before[i] = *l
	}
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	for i, l := range logs {
		if !reflect.DeepEqual(*l, before[i]) {
			t.Fatalf("StoreLogs changed entry %d of its caller", l.Index)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, logstore.Config{})
	var calls int
	var done, total uint64
	err := s.Verify(t.Context(), func(d, n uint64) { calls, done, total = calls+1, d, n })
	if err != nil || calls == 0 || done != 23 || total != 23 {
		t.Fatalf("Verify: error %v, progress %d times up to %d of %d, want 23 of 23", err, calls, done, total)
	}
	for i := range before {
		want := &before[i]
		var got raft.Log
		if err := s.GetLog(want.Index, &got); err != nil {
			t.Fatal(err)
		}
		if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type ||
			string(got.Data) != string(want.Data) || string(got.Extensions) != string(want.Extensions) ||
			!got.AppendedAt.Equal(want.AppendedAt) {
			t.Errorf("entry %d came back as %+v, want %+v", want.Index, got, want)
		}
	}
	var l raft.Log
	if err := s.GetLog(24, &l); err != raft.ErrLogNotFound {
		t.Errorf("an absent entry: error %v, want exactly raft.ErrLogNotFound", err)
	}
	wantBounds(t, s, 1, 23)
}

func TestStableValues(t *testing.T) {
	s := open(t, logPath(t), logstore.Config{})
	key := []byte("CurrentTerm")
	if _, err := s.GetUint64(key); err == nil || err.Error() != "not found" {
		t.Errorf("an absent number: error %v, want the text raft looks for", err)
	}
	if _, err := s.Get(key); err == nil || err.Error() != "not found" {
		t.Errorf("an absent value: error %v, want the text raft looks for", err)
	}
	if err := s.SetUint64(key, 1<<60+7); err != nil {
		t.Fatal(err)
	}
	if n, err := s.GetUint64(key); n != 1<<60+7 || err != nil {
		t.Errorf("GetUint64 = %d, %v", n, err)
	}
	if err := s.Set([]byte("LastVoteCand"), []byte("node-1")); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get([]byte("LastVoteCand")); string(v) != "node-1" || err != nil {
		t.Errorf("Get = %q, %v", v, err)
	}
}

func TestSecondOpenIsToldThatTheFileIsInUse(t *testing.T) {
	path := logPath(t)
	open(t, path, logstore.Config{})
	_, err := logstore.Open(path, logstore.Config{})
	if !errors.Is(err, logstore.ErrInUse) {
		t.Fatalf("got error %v, want ErrInUse", err)
	}
	wantExit(t, err, logstore.ExitInUse)
}

func TestCompactionIsHeldBackToTheOldestSnapshot(t *testing.T) {
	tests := []struct {
		name        string
		keep        uint64
		min, max    uint64
		first, last uint64
	}{
		{"no snapshot", 0, 1, 60, 61, 100},
		{"below the snapshot", 70, 1, 60, 61, 100},
		{"beyond the snapshot", 40, 1, 60, 41, 100},
		{"snapshot before the log", 0, 1, 1, 2, 100},
		{"a tail is not compaction", 40, 60, 100, 1, 59},
		{"a tail from the first entry on", 40, 1, 100, 0, 0},
		{"beyond both ends", 40, 0, 1000, 0, 0},
		{"nothing there", 40, 101, 1000, 1, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, logPath(t), logstore.Config{KeepFrom: func() uint64 { return tt.keep }})
			appendLogs(t, s, 1, 100)
			if err := s.DeleteRange(tt.min, tt.max); err != nil {
				t.Fatal(err)
			}
			wantBounds(t, s, tt.first, tt.last)
			for i := tt.first; i != 0 && i <= tt.last; i++ {
				var l raft.Log
				if err := s.GetLog(i, &l); err != nil {
					t.Fatalf("entry %d: %v", i, err)
				}
			}
		})
	}
}

func TestCompactionOfManyEntriesAcrossAGap(t *testing.T) {
	s := open(t, logPath(t), logstore.Config{})
	appendLogs(t, s, 1, 10_000)
	appendLogs(t, s, 1_000_000, 1_000_100)
	if err := s.DeleteRange(1, 1_000_049); err != nil {
		t.Fatal(err)
	}
	wantBounds(t, s, 1_000_050, 1_000_100)
}

func TestReaches(t *testing.T) {
	path := logPath(t)
	s := open(t, path, logstore.Config{})
	appendLogs(t, s, 11, 50)
	appendLogs(t, s, 81, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, logstore.Config{})
	if err := s.Verify(t.Context(), nil); err != nil {
		t.Fatalf("Verify of a log with a gap: %v", err)
	}
	for _, tt := range []struct{ snapshot, missing uint64 }{
		{0, 1}, {9, 10}, {10, 51}, {50, 51}, {79, 80}, {80, 0}, {90, 0}, {100, 0}, {500, 0},
	} {
		err := s.Reaches(tt.snapshot)
		if tt.missing == 0 {
			if err != nil {
				t.Errorf("snapshot %d: %v, want that it reaches the log", tt.snapshot, err)
			}
			continue
		}
		wantCorrupt(t, err, tt.missing)
	}
	empty := open(t, logPath(t), logstore.Config{})
	if err := empty.Reaches(0); err != nil {
		t.Errorf("an empty log: %v", err)
	}
}

func TestAFailedWriteIsTheLast(t *testing.T) {
	writes := map[string]func(*logstore.Store) error{
		"StoreLogs":   func(s *logstore.Store) error { return s.StoreLogs(entries(11, 12)) },
		"DeleteRange": func(s *logstore.Store) error { return s.DeleteRange(1, 5) },
		"Set":         func(s *logstore.Store) error { return s.SetUint64([]byte("k"), 2) },
	}
	for name, failing := range writes {
		t.Run(name, func(t *testing.T) {
			path, faults, gaveUp := logPath(t), &logstore.Faults{}, newFatal()
			s := open(t, path, logstore.Config{Faults: faults, Fatal: gaveUp.call})
			appendLogs(t, s, 1, 10)
			if err := s.SetUint64([]byte("k"), 1); err != nil {
				t.Fatal(err)
			}
			faults.FailNext(&os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC})
			err := failing(s)
			wantExit(t, err, logstore.ExitIO)
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v does not tell that the disk is full", err)
			}
			for again, write := range writes {
				if err := write(s); err == nil {
					t.Errorf("%s succeeded after the failure", again)
				}
			}
			if got := gaveUp.only(t); !errors.Is(got, err) {
				t.Errorf("Fatal got %v, want %v", got, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path, logstore.Config{})
			wantBounds(t, s, 1, 10)
			if n, err := s.GetUint64([]byte("k")); n != 1 || err != nil {
				t.Errorf("stable value is %d, %v, want 1", n, err)
			}
		})
	}
}

// run runs the watchdog until the test ends.
func run(t *testing.T, s *logstore.Store) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(cancel)
	return done
}

func TestAWriteThatHangsEndsTheStore(t *testing.T) {
	path, faults, gaveUp := logPath(t), &logstore.Faults{}, newFatal()
	s := open(t, path, logstore.Config{Faults: faults, Fatal: gaveUp.call, HangLimit: 50 * time.Millisecond})
	appendLogs(t, s, 1, 10)
	done := run(t, s)
	if d := s.Hung(); d != 0 {
		t.Fatalf("Hung = %s while nothing is written", d)
	}
	faults.Hang()
	stored := make(chan error, 1)
	go func() { stored <- s.StoreLogs(entries(11, 11)) }()
	err := gaveUp.wait(t)
	wantExit(t, err, logstore.ExitIO)
	if !errors.Is(err, logstore.ErrHung) {
		t.Errorf("got %v, want ErrHung", err)
	}
	if d := s.Hung(); d < 50*time.Millisecond {
		t.Errorf("Hung = %s, want at least the limit", d)
	}
	if err := <-done; !errors.Is(err, logstore.ErrHung) {
		t.Errorf("Run returned %v, want ErrHung", err)
	}
	faults.Release()
	if err := <-stored; !errors.Is(err, logstore.ErrHung) {
		t.Errorf("the released write returned %v, want ErrHung", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, logstore.Config{})
	wantBounds(t, s, 1, 10)
}

func TestAShortDelayIsNoHang(t *testing.T) {
	faults, gaveUp := &logstore.Faults{}, newFatal()
	s := open(t, logPath(t), logstore.Config{Faults: faults, Fatal: gaveUp.call, HangLimit: time.Minute})
	run(t, s)
	faults.Hang()
	stored := make(chan error, 1)
	go func() { stored <- s.StoreLogs(entries(1, 1)) }()
	until(t, "the write hangs", func() bool { return s.Hung() > 0 })
	faults.Release()
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	if d := s.Hung(); d != 0 {
		t.Errorf("Hung = %s after the write", d)
	}
	faults.Delay(20 * time.Millisecond)
	start := time.Now()
	appendLogs(t, s, 2, 2)
	if d := time.Since(start); d < 20*time.Millisecond {
		t.Errorf("a delayed write took %s", d)
	}
	if len(gaveUp.errs) > 0 {
		t.Errorf("Fatal was called: %v", gaveUp.errs)
	}
}

func TestCloseDuringAHang(t *testing.T) {
	faults := &logstore.Faults{}
	s := open(t, logPath(t), logstore.Config{Faults: faults})
	faults.Hang()
	stored := make(chan error, 1)
	go func() { stored <- s.StoreLogs(entries(1, 1)) }()
	until(t, "the write hangs", func() bool { return s.Hung() > 0 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-stored; !errors.Is(err, logstore.ErrClosed) {
		t.Errorf("the write returned %v, want ErrClosed", err)
	}
	if err := s.StoreLogs(entries(2, 2)); !errors.Is(err, logstore.ErrClosed) {
		t.Errorf("a write after Close returned %v, want ErrClosed", err)
	}
	var l raft.Log
	if err := s.GetLog(1, &l); !errors.Is(err, logstore.ErrClosed) {
		t.Errorf("a read after Close returned %v, want ErrClosed", err)
	}
}

func TestAFileOfBareRaftBoltdbIsRefused(t *testing.T) {
	path := logPath(t)
	bare, err := raftboltdb.NewBoltStore(path)
	if err != nil {
		t.Fatal(err)
	}
	appendLogs(t, bare, 5, 9)
	if err := bare.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := logstore.Open(path, logstore.Config{})
	if err == nil {
		defer s.Close()
		err = s.Verify(t.Context(), nil)
		wantCorrupt(t, err, 5)
		return
	}
	wantExit(t, err, logstore.ExitCorrupt)
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := open(t, logPath(t), logstore.Config{Registerer: reg})
	appendLogs(t, s, 3, 10)
	if err := s.DeleteRange(3, 4); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch {
			case m.GetHistogram() != nil:
				got[f.GetName()+" "+m.GetLabel()[0].GetValue()] = float64(m.GetHistogram().GetSampleCount())
			case m.GetGauge() != nil:
				got[f.GetName()] = m.GetGauge().GetValue()
			default:
				got[f.GetName()] = m.GetCounter().GetValue()
			}
		}
	}
	for name, want := range map[string]float64{
		"muster_logstore_entries":                6,
		"muster_logstore_appended_entries_total": 8,
		"muster_logstore_corruptions_total":      0,
		"muster_logstore_write_running_seconds":  0,
		"muster_logstore_write_seconds append":   1,
		"muster_logstore_write_seconds delete":   1,
		"muster_logstore_write_seconds stable":   0,
	} {
		if g, ok := got[name]; !ok || g != want {
			t.Errorf("%s = %v (there: %v), want %v", name, g, ok, want)
		}
	}
	if got["muster_logstore_file_bytes"] < 16<<10 {
		t.Errorf("file size %v is too small", got["muster_logstore_file_bytes"])
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
}
