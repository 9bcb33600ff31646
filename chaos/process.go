package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Node is one muster process, which may end and be started again on its data. Its
// methods may be called concurrently.
type Node struct {
	Name string
	URL  string // base URL of its API

	host   *host
	binary string
	dir    string // holds the node's log, its data and the file that makes its disk worse
	args   []string
	env    []string
	ended  func(n *Node, code int) // told of an end that nobody asked for

	mu    sync.Mutex // guards what follows
	cmd   *exec.Cmd
	done  chan struct{} // closed when the process has ended and code is set
	code  int
	asked bool  // its end was asked for
	may   []int // exit codes that it may end with by itself
	life  int   // how often it was started
}

func (n *Node) dataDir() string  { return filepath.Join(n.dir, "data") }
func (n *Node) diskFile() string { return filepath.Join(n.dir, "disk") }

// LogPath is the file that all the node's processes write their logs to.
func (n *Node) LogPath() string { return filepath.Join(n.dir, "log") }

// Start starts the process, which must not run.
func (n *Node) Start() error {
	log, err := os.OpenFile(n.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("opening a node's log: %w", err)
	}
	defer log.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	cmd := exec.Command(n.binary, n.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), n.env...)
	dieWithUs(cmd)
	if err := n.host.do(cmd.Start); err != nil {
		return fmt.Errorf("starting %s: %w", n.Name, err)
	}
	done := make(chan struct{})
	n.cmd, n.done, n.asked, n.may = cmd, done, false, nil
	n.life++
	go func() {
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			fmt.Fprintf(os.Stderr, "waiting for %s: %v\n", n.Name, err)
		}
		n.mu.Lock()
		n.code = cmd.ProcessState.ExitCode()
		code, expected := n.code, n.asked || slices.Contains(n.may, n.code)
		close(done)
		n.mu.Unlock()
		if !expected {
			n.ended(n, code)
		}
	}()
	return nil
}

// Alive reports whether the process runs, if only stopped.
func (n *Node) Alive() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.alive()
}

func (n *Node) alive() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// lives is how often the process was started.
func (n *Node) lives() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.life
}

// mayEnd says with which codes the process may end by itself, until it is started again.
func (n *Node) mayEnd(codes ...int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.may = codes
}

// Kill ends the process the hard way, if it runs, and waits until it has ended.
func (n *Node) Kill() { n.end(syscall.SIGKILL) }

// end asks the process to end by a signal, and waits. One that does not end in 30 s
// is killed. A stopped process is let go on, since it would not hear.
func (n *Node) end(s syscall.Signal) (code int) {
	n.mu.Lock()
	if !n.alive() {
		code = n.code
		n.mu.Unlock()
		return code
	}
	n.asked = true
	cmd, done := n.cmd, n.done
	n.mu.Unlock()
	_ = cmd.Process.Signal(s)
	if s != syscall.SIGKILL {
		_ = cmd.Process.Signal(syscall.SIGCONT)
	}
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		_ = cmd.Process.Kill()
		<-done
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.code
}

// Pause stops the process where it is, Resume lets it go on.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP) }

// Resume lets a stopped process go on.
func (n *Node) Resume() error { return n.signal(syscall.SIGCONT) }

func (n *Node) signal(s syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.alive() {
		return nil
	}
	if err := n.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("sending %s to %s: %w", s, n.Name, err)
	}
	return nil
}

// exit waits until the process has ended, and returns its code.
func (n *Node) exit(ctx context.Context) (int, error) {
	n.mu.Lock()
	done := n.done
	n.mu.Unlock()
	select {
	case <-done:
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.code, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for the end of %s: %w", n.Name, ctx.Err())
	}
}

// Wipe removes all the node holds. The process must not run.
func (n *Node) Wipe() error {
	return n.host.do(func() error {
		entries, err := os.ReadDir(n.dataDir())
		if err != nil {
			return fmt.Errorf("wiping %s: %w", n.Name, err)
		}
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(n.dataDir(), e.Name())); err != nil {
				return fmt.Errorf("wiping %s: %w", n.Name, err)
			}
		}
		return nil
	})
}

// Disk makes the node's disk worse, or with "" as good as it is.
func (n *Node) Disk(order string) error {
	next := n.diskFile() + ".next"
	if err := os.WriteFile(next, []byte(order), 0o644); err != nil {
		return fmt.Errorf("making a disk worse: %w", err)
	}
	if err := os.Rename(next, n.diskFile()); err != nil {
		return fmt.Errorf("making a disk worse: %w", err)
	}
	return nil
}

// fill leaves so many bytes free on the node's disk; Heal gives the others back.
func (n *Node) fill(leave uint64) error {
	return n.host.do(func() error {
		free, err := freeOn(n.dataDir())
		if err != nil {
			return err
		}
		if free <= leave {
			return nil
		}
		if err := os.WriteFile(n.ballast(), make([]byte, free-leave), 0o600); err != nil {
			return fmt.Errorf("filling the disk of %s: %w", n.Name, err)
		}
		return nil
	})
}

func (n *Node) ballast() string { return filepath.Join(n.dataDir(), "ballast") }

// unfill gives back what fill has taken.
func (n *Node) unfill() error {
	return n.host.do(func() error {
		if err := os.Remove(n.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("emptying the disk of %s: %w", n.Name, err)
		}
		return nil
	})
}

// muster runs a verb of the command line on the node's host, and returns what it printed.
func (n *Node) muster(ctx context.Context, args ...string) (out string, err error) {
	err = n.host.do(func() error {
		var stderr strings.Builder
		cmd := exec.CommandContext(ctx, n.binary, args...)
		cmd.Stderr = &stderr
		b, err := cmd.Output()
		if out = string(b); err != nil {
			return fmt.Errorf("muster %s: %w: %s", strings.Join(args, " "), err, stderr.String())
		}
		return nil
	})
	return out, err
}

// size is how long the log is by now, since where grep may look at what comes later.
func (n *Node) size() int64 {
	info, err := os.Stat(n.LogPath())
	if err != nil {
		return 0
	}
	return info.Size()
}

// said is what the node has logged from there on.
func (n *Node) said(from int64) string {
	b, err := os.ReadFile(n.LogPath())
	if err != nil || int64(len(b)) < from {
		return ""
	}
	return string(b[from:])
}

// tail is the last lines of a log.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// ready reports whether the node answers reads and knows a leader.
func (n *Node) ready(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL+"/readyz?require=leader", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
