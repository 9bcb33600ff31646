package logstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-registry/muster/cluster/logstore"
)

// TestWhatIsAcknowledgedIsOnTheDisk asks the kernel, after each write that was
// acknowledged, whether the file has pages that a power cut would take with it.
func TestWhatIsAcknowledgedIsOnTheDisk(t *testing.T) {
	path := logPath(t)
	probe, err := os.Create(filepath.Join(filepath.Dir(path), "probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	if _, err := probe.WriteString("not on the disk"); err != nil {
		t.Fatal(err)
	}
	if unsafe(t, probe.Name()) == 0 {
		t.Skip("this file system does not say what is on its disk")
	}
	if err := probe.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := unsafe(t, probe.Name()); n > 0 {
		t.Skipf("this file system says after an fsync that %d pages are not on its disk", n)
	}

	s := open(t, path, logstore.Config{})
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n := unsafe(t, path); n > 0 {
			t.Errorf("%s was acknowledged with %d pages that are not on the disk", what, n)
		}
	}
	check("a new file", nil)
	for i := range uint64(20) {
		check("an entry", s.StoreLogs(entries(3*i+1, 3*i+3)))
	}
	check("a vote", s.SetUint64([]byte("LastVoteTerm"), 7))
	check("a value", s.Set([]byte("LastVoteCand"), []byte("n1")))
	check("a truncation", s.DeleteRange(55, 60))
}

// unsafe is how many pages of a file are in memory only, or on their way.
func unsafe(t *testing.T, path string) uint64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var pages unix.Cachestat_t
	err = unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &pages, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("this kernel does not say what is on the disk: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return pages.Dirty + pages.Writeback
}
