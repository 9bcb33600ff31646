package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-registry/muster/durable"
)

// crashWriter names the file that this program, started anew, writes until it is killed.
const crashWriter = "DURABLE_TEST_WRITES"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashWriter); path != "" {
		writeForever(path)
	}
	os.Exit(m.Run())
}

// content is n of one letter, so that a mixture of two shows.
func content(letter byte) []byte { return bytes.Repeat([]byte{letter}, 256<<10) }

func writeForever(path string) {
	for n := 0; ; n++ {
		if err := durable.WriteFile(path, content('a'+byte(n%26)), 0o600); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("wrote")
	}
}

// files are the names in a directory, and whether each is a part.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wantContent(t *testing.T, path, want string, mode fs.FileMode) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != want {
		t.Errorf("%s holds %q, %v, want %q", path, b, err, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
		t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, mode)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, mode := range []fs.FileMode{0o600, 0o666, 0o640} { // none of them the umask's
		want := fmt.Sprint("content of ", mode)
		if err := durable.WriteFile(path, []byte(want), mode); err != nil {
			t.Fatal(err)
		}
		wantContent(t, path, want, mode)
	}
	if got := files(t, dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("in the directory are %q, want only the file", got)
	}
}

func TestAFailedWriteLeavesTheOld(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := durable.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := durable.Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("half"); err != nil {
		t.Fatal(err)
	}
	wantContent(t, path, "old", 0o600)
	if err := f.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := f.Discard(); err != nil {
		t.Errorf("discarding twice: %v", err)
	}
	if err := f.Commit(); err == nil {
		t.Error("a discarded file was committed")
	}
	wantContent(t, path, "old", 0o600)

	// Its place is taken by a directory, which no file replaces.
	taken := filepath.Join(dir, "taken")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(taken, []byte("new"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if err := durable.WriteFile(filepath.Join(dir, "missing", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("writing into a directory that is missing: %v", err)
	}
	if got := files(t, dir); !slices.Equal(got, []string{"f", "taken"}) {
		t.Errorf("in the directory are %q, want no part", got)
	}
}

// TestDirectoryIsFlushed: whoever may write in a directory but not read it cannot flush
// it, and is told so.
func TestDirectoryIsFlushed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	root := os.Geteuid() == 0
	const nobody = 65534
	if root {
		if err := errors.Join(os.Chown(dir, nobody, nobody), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
			t.Skip("cannot give a directory away: ", err)
		}
	}
	if err := os.Chmod(dir, 0o300); err != nil {
		t.Fatal(err)
	}
	written := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if root {              // whom no mode keeps out
			if err := unix.Setfsuid(nobody); err != nil {
				t.Error(err)
			}
		}
		written <- durable.WriteFile(path, []byte("new"), 0o600)
	}()
	if err := <-written; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a directory that cannot be flushed: %v, want a refusal", err)
	}
	wantContent(t, path, "new", 0o600)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.SyncDir(dir); err != nil {
		t.Error(err)
	}
}

// TestKilledWhileWriting kills a process at any moment of its writing.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashWriter+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, err := out.Read(make([]byte, len("wrote\nwrote\n"))); err != nil || n == 0 {
			t.Fatal("the writer says nothing: ", err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // says that it was killed
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 || !bytes.Equal(b, content(b[0])) {
			t.Fatalf("after a kill the file is of %d bytes and not whole: %v", len(b), err)
		}
	}
	if err := durable.Sweep(dir, "f", 0); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("after a sweep there are %q", got)
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	part := func(name string, age time.Duration) {
		t.Helper()
		f, err := durable.Create(filepath.Join(dir, name), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := errors.Join(f.Close(), os.Chtimes(f.Name(), at, at)); err != nil {
			t.Fatal(err)
		}
	}
	part("mine", time.Hour)
	part("mine-too", 2*time.Hour)
	part("mine-now", 0)
	part("others", time.Hour)
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "mine.1.part"), 0o700); err != nil {
		t.Fatal(err)
	}
	count := func(pattern string) int {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	if err := durable.Sweep(dir, "mine", time.Minute); err != nil {
		t.Fatal(err)
	}
	if count("mine") != 1 || count("mine.*") != 1 || count("mine-too*") != 0 || count("mine-now*") != 1 || count("others*") != 1 {
		t.Errorf("after a sweep of those a minute old there are %q", files(t, dir))
	}
	if err := durable.Sweep(dir, "mine", 0); err != nil {
		t.Fatal(err)
	}
	if count("mine*") != 2 || count("others*") != 1 {
		t.Errorf("after a sweep there are %q", files(t, dir))
	}
	if err := durable.Sweep(filepath.Join(dir, "missing"), "mine", 0); err != nil {
		t.Errorf("a directory that is missing: %v", err)
	}
}
