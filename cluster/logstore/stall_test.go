package logstore_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster/cluster/logstore"
)

// stallPath makes the test binary the process that is stopped.
const stallPath = "MUSTER_LOGSTORE_STALL_PATH"

// TestAStoppedProcessIsNoHang stops a process, as an operator or a hypervisor
// may, in the middle of a write and for longer than a write may take.
func TestAStoppedProcessIsNoHang(t *testing.T) {
	if path := os.Getenv(stallPath); path != "" {
		stalled(t, path)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAStoppedProcessIsNoHang$", "-test.timeout=30s")
	cmd.Env = append(os.Environ(), stallPath+"="+logPath(t))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	read := func() string {
		if !lines.Scan() {
			t.Fatalf("the process ended early: %v", cmd.Wait())
		}
		return lines.Text()
	}
	if line := read(); line != "writing" {
		t.Fatalf("the process said %q", line)
	}
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		<-time.NewTimer(1200 * time.Millisecond).C
	}
	if _, err := fmt.Fprintln(stdin, "go on"); err != nil {
		t.Fatal(err)
	}
	verdict := read()
	stdin.Close()
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the process failed: %v", err)
	}
	if !strings.HasPrefix(verdict, "written") {
		t.Errorf("the process said %q, want that it goes on after having been stopped", verdict)
	}
}

// stalled is what the stopped process does: one write that takes until a line
// comes in.
func stalled(t *testing.T, path string) {
	faults := &logstore.Faults{}
	s := open(t, path, logstore.Config{Faults: faults, HangLimit: 2 * time.Second})
	done := run(t, s)
	faults.Hang()
	stored := make(chan error, 1)
	go func() { stored <- s.StoreLogs(entries(1, 1)) }()
	until(t, "the write hangs", func() bool { return s.Hung() > 0 })
	fmt.Println("writing")
	if !bufio.NewScanner(os.Stdin).Scan() {
		t.Fatal("nobody says to go on")
	}
	faults.Release()
	if err := <-stored; err != nil {
		fmt.Println("failed:", err)
	} else {
		fmt.Println("written")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; errors.Is(err, logstore.ErrHung) {
		t.Errorf("the watchdog gave up: %v", err)
	}
}
