package logstore_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/muster-registry/muster/cluster/logstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fatal records what a store gave up with.
type fatal struct {
	mu     sync.Mutex
	errs   []error
	called chan struct{}
}

func newFatal() *fatal { return &fatal{called: make(chan struct{}, 16)} }

func (f *fatal) call(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
	f.called <- struct{}{}
}

// wait returns the one error, once it has come.
func (f *fatal) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-f.called:
	case <-time.After(10 * time.Second):
		t.Fatal("Fatal was not called")
	}
	return f.only(t)
}

func (f *fatal) only(t *testing.T) error {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) != 1 {
		t.Fatalf("Fatal was called %d times: %v, want once", len(f.errs), f.errs)
	}
	return f.errs[0]
}

func wantExit(t *testing.T, err error, code int) {
	t.Helper()
	e, ok := errors.AsType[*logstore.ExitError](err)
	if !ok || e.ExitCode() != code {
		t.Fatalf("got error %v, want one with exit code %d", err, code)
	}
}

func wantCorrupt(t *testing.T, err error, index uint64) {
	t.Helper()
	wantExit(t, err, logstore.ExitCorrupt)
	e, ok := errors.AsType[*logstore.CorruptError](err)
	if !ok || e.Index != index {
		t.Fatalf("got error %v, want a CorruptError at index %d", err, index)
	}
}

// until waits for cond.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func logPath(t testing.TB) string { return filepath.Join(t.TempDir(), "raft.db") }

func open(t testing.TB, path string, cfg logstore.Config) *logstore.Store {
	t.Helper()
	s, err := logstore.Open(path, cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// entry makes the log entry of an index; its content follows from it.
func entry(index uint64) *raft.Log {
	l := &raft.Log{
		Index: index, Term: index/100 + 1, Type: raft.LogCommand,
		Data:       fmt.Appendf(nil, "entry %d of the log", index),
		AppendedAt: time.Unix(1_700_000_000, int64(index)),
	}
	if index%3 == 0 {
		l.Extensions = fmt.Appendf(nil, "extension %d", index)
	}
	return l
}

func entries(from, to uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, entry(i))
	}
	return logs
}

func appendLogs(t testing.TB, s raft.LogStore, from, to uint64) {
	t.Helper()
	if err := s.StoreLogs(entries(from, to)); err != nil {
		t.Fatalf("StoreLogs %d to %d: %v", from, to, err)
	}
}

func wantBounds(t *testing.T, s raft.LogStore, first, last uint64) {
	t.Helper()
	gotFirst, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	gotLast, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if gotFirst != first || gotLast != last {
		t.Fatalf("log goes from %d to %d, want %d to %d", gotFirst, gotLast, first, last)
	}
}
