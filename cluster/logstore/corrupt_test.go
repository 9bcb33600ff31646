package logstore_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/cluster/logstore"
)

// The default is a prime, so that all fields of the 16-byte records are met.
var flipStep = flag.Int("flipstep", 401, "TestAnyFlippedByteIsSeen inverts every n-th byte")

// fill writes a log with branch pages, overflow pages, free pages and stable
// values, and returns its path.
func fill(t testing.TB) string {
	t.Helper()
	path := logPath(t)
	s := open(t, path, logstore.Config{})
	appendLogs(t, s, 1, 150)
	if err := s.DeleteRange(1, 20); err != nil {
		t.Fatal(err)
	}
	big := entry(151)
	big.Data = make([]byte, 6<<10)
	if err := s.StoreLog(big); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 3); err != nil {
		t.Fatal(err)
	}
	if err := s.Set([]byte("LastVoteCand"), []byte("someone")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// soundOrCorrupt opens the file and checks that it is either found damaged, with
// exit code 65, or holds exactly what fill wrote.
func soundOrCorrupt(t testing.TB, path string) (damaged bool) {
	t.Helper()
	s, err := logstore.Open(path, logstore.Config{})
	if err == nil {
		defer s.Close()
		err = s.Verify(t.Context(), nil)
	}
	if err == nil {
		err = s.Reaches(20)
	}
	if err != nil {
		e, ok := errors.AsType[*logstore.ExitError](err)
		if !ok || e.Code != logstore.ExitCorrupt {
			t.Fatalf("got error %v, want exit code 65", err)
		}
		return true
	}
	for i := uint64(21); i <= 151; i++ {
		want := entry(i)
		if i == 151 {
			want.Data = make([]byte, 6<<10)
		}
		var got raft.Log
		if err := s.GetLog(i, &got); err != nil {
			t.Fatalf("entry %d of a verified log: %v", i, err)
		}
		if got.Index != i || got.Term != want.Term || string(got.Data) != string(want.Data) ||
			string(got.Extensions) != string(want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
			t.Fatalf("entry %d of a verified log is %+v, want %+v", i, got, want)
		}
	}
	if last, err := s.LastIndex(); last != 151 || err != nil {
		t.Fatalf("LastIndex of a verified log = %d, %v, want 151", last, err)
	}
	if n, err := s.GetUint64([]byte("CurrentTerm")); n != 3 || err != nil {
		t.Fatalf("term of a verified log = %d, %v, want 3", n, err)
	}
	if v, err := s.Get([]byte("LastVoteCand")); string(v) != "someone" || err != nil {
		t.Fatalf("vote of a verified log = %q, %v", v, err)
	}
	return false
}

func TestFlippedByteNamesItsIndex(t *testing.T) {
	path := fill(t)
	for _, index := range []uint64{21, 22, 100, 150, 151} {
		damaged := filepath.Join(t.TempDir(), "raft.db")
		copyFile(t, path, damaged)
		if err := logstore.FlipByte(damaged, index); err != nil {
			t.Fatal(err)
		}
		s := open(t, damaged, logstore.Config{})
		err := s.Verify(t.Context(), nil)
		wantCorrupt(t, err, index)
		if !strings.Contains(err.Error(), damaged) {
			t.Errorf("error %q does not name the file", err)
		}
	}
	if err := logstore.FlipByte(path, 999); err == nil {
		t.Error("FlipByte of an absent index succeeded")
	}
}

// TestAnyFlippedByteIsSeen inverts one byte of the file at a time. Whatever it
// was part of, the log is refused or it reads as it was written; nothing panics.
func TestAnyFlippedByteIsSeen(t *testing.T) {
	path := fill(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !sound(t, path) {
		t.Fatal("the undamaged log is refused")
	}
	step := *flipStep
	damaged, seen := filepath.Join(t.TempDir(), "raft.db"), 0
	for at := 0; at < len(good); at += step {
		bad := append([]byte(nil), good...)
		bad[at] ^= 0xff
		if err := os.WriteFile(damaged, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if soundOrCorrupt(t, damaged) {
			seen++
		}
	}
	if seen*step < len(good)/10 {
		t.Errorf("only %d damaged copies of %d were refused", seen, len(good)/step)
	}
}

func sound(t testing.TB, path string) bool {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "raft.db")
	copyFile(t, path, copied)
	return !soundOrCorrupt(t, copied)
}

func TestTruncatedFile(t *testing.T) {
	path := fill(t)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{1, 100, 4096, 8192, 12288, info.Size() / 2} {
		damaged := filepath.Join(t.TempDir(), "raft.db")
		copyFile(t, path, damaged)
		if err := os.Truncate(damaged, size); err != nil {
			t.Fatal(err)
		}
		_, err := logstore.Open(damaged, logstore.Config{})
		wantExit(t, err, logstore.ExitCorrupt)
	}
}

func TestNotALog(t *testing.T) {
	path := logPath(t)
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no log ", 2000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := logstore.Open(path, logstore.Config{})
	wantExit(t, err, logstore.ExitCorrupt)
	_, err = logstore.Open(t.TempDir(), logstore.Config{})
	wantExit(t, err, logstore.ExitIO)
}

// TestAnUnreadablePage: a page that the disk does not give back raises a fault
// where it is read from memory, which would end the process.
func TestAnUnreadablePage(t *testing.T) {
	path := fill(t)
	gaveUp := newFatal()
	s := open(t, path, logstore.Config{Fatal: gaveUp.call})
	if err := os.Truncate(path, 8192); err != nil { // the two meta pages
		t.Fatal(err)
	}
	var l raft.Log
	wantExit(t, s.GetLog(77, &l), logstore.ExitIO)
	if _, err := s.LastIndex(); err == nil {
		t.Error("LastIndex of a file that is gone succeeded")
	}
	wantExit(t, gaveUp.only(t), logstore.ExitIO)
}

func TestDamageBeforeRunIsReturned(t *testing.T) {
	path := fill(t)
	gaveUp := newFatal()
	s := open(t, path, logstore.Config{Fatal: gaveUp.call})
	if err := logstore.FlipByte(path, 77); err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	wantCorrupt(t, s.GetLog(77, &l), 77)
	wantCorrupt(t, gaveUp.only(t), 77)
	if err := s.GetLog(78, &l); err != nil {
		t.Errorf("a sound entry beside it: %v", err)
	}
	if err := s.StoreLogs(entries(152, 152)); err == nil {
		t.Error("a damaged log was written to")
	}
}

// TestDamageWhileRunningHoldsTheReader: raft would panic on an error, so its
// goroutine is held and ends with Close.
func TestDamageWhileRunningHoldsTheReader(t *testing.T) {
	path := fill(t)
	gaveUp, faults := newFatal(), &logstore.Faults{}
	s := open(t, path, logstore.Config{Fatal: gaveUp.call, Faults: faults, HangLimit: 50 * time.Millisecond})
	run(t, s)
	// A hang far below the limit shows that the watchdog, and so Run, is under way.
	faults.Hang()
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		_ = s.StoreLogs(entries(152, 152))
	}()
	gaveUp.wait(t)
	if err := logstore.FlipByte(path, 77); err != nil {
		t.Fatal(err)
	}
	ended, returned := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(ended)
		var l raft.Log
		returned <- s.GetLog(77, &l)
	}()
	select {
	case err := <-returned:
		t.Fatalf("GetLog returned %v, want it to be held", err)
	case <-ended:
		t.Fatal("the reader ended before Close")
	case <-time.After(50 * time.Millisecond):
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	<-hung
	select {
	case err := <-returned:
		t.Errorf("GetLog returned %v after Close, want its goroutine to end", err)
	default:
	}
}

func FuzzOpen(f *testing.F) {
	good, err := os.ReadFile(fill(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{1, 2, 3}, uint32(0))
	f.Add(uint32(4096*3+8), []byte{2, 0, 255, 255, 255, 255, 255, 255}, uint32(0))
	f.Add(uint32(4096*5), []byte("garbage in the middle"), uint32(4096*6))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) {
		bad := append([]byte(nil), good...)
		copy(bad[int(at)%len(bad):], patch)
		if cut > 0 {
			bad = bad[:int(cut)%len(bad)]
		}
		path := filepath.Join(t.TempDir(), "raft.db")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if len(bad) > 0 {
			soundOrCorrupt(t, path)
		}
	})
}
