package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// example builds a program of examples/ and returns its path.
func example(t *testing.T, name string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), filepath.Base(name))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // the first build of all
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "../../examples/"+name).CombinedOutput(); err != nil {
		t.Fatalf("building examples/%s: %v\n%s", name, err, out)
	}
	return binary
}

// calls are the lines that a caller printed.
type calls struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

func (c *calls) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		c.mu.Lock()
		c.lines = append(c.lines, lines.Text())
		c.mu.Unlock()
	}
}

// since returns the lines from the nth on.
func (c *calls) since(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.lines[min(n, len(c.lines)):]...)
}

// TestExamplesSurviveCrashes runs the examples as a reader would, three servers and a
// caller: no call fails while a server is killed with -9, and the leader of the
// registry, and another server is told to end.
func TestExamplesSurviveCrashes(t *testing.T) {
	nodes := newCluster(t, 3)
	var addrs []string
	for _, p := range nodes {
		p.start()
		addrs = append(addrs, strings.TrimPrefix(p.url, "http://"))
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	registry := strings.Join(addrs, ",")
	for _, tc := range []struct{ kind, service string }{{"http", "greetings"}, {"grpc", "users"}} {
		t.Run(tc.kind, func(t *testing.T) {
			server, caller := example(t, tc.kind+"/server"), example(t, tc.kind+"/caller")
			servers := map[string]*exec.Cmd{}
			for n := range 3 {
				id := fmt.Sprintf("%s-%d", tc.service, n+1)
				servers[id] = exec.Command(server, "--registry", registry, "--id", id)
				begin(t, servers[id], &syncBuffer{})
			}
			var out, errs syncBuffer
			if code := run(t.Context(), []string{"wait", tc.service, "--count", "3", "--timeout", patience.String(), "--addr", registry}, &out, &errs); code != 0 {
				t.Fatalf("the servers did not register: %s%s", out.String(), errs.String())
			}
			cmd := exec.Command(caller, "--registry", registry, "--every", "10ms")
			r, w := io.Pipe()
			cmd.Stdout = w
			var got calls
			var reading sync.WaitGroup
			reading.Go(func() { got.read(r) })
			begin(t, cmd, &syncBuffer{})
			// seen waits until the ids, and only they, have answered the latest calls.
			seen := func(what string, from int, ids ...string) {
				t.Helper()
				waitFor(t, what, func() bool {
					text := strings.Join(got.since(from), "\n")
					for _, id := range ids {
						if !strings.Contains(text, id) {
							return false
						}
					}
					return len(got.since(from)) >= 50
				})
			}
			first, second, third := tc.service+"-1", tc.service+"-2", tc.service+"-3"
			seen("all three answer", 0, first, second, third)

			servers[first].Process.Kill()
			leader := leaderOf(t, nodes)
			leader.signal(syscall.SIGKILL)
			leader.wait()
			seen("two answer", len(got.since(0)), second, third)

			servers[second].Process.Signal(syscall.SIGTERM)
			if err := servers[second].Wait(); err != nil {
				t.Errorf("a server that was told to end: %v", err)
			}
			seen("one answers", len(got.since(0)), third)
			leader.start()
			for _, p := range nodes {
				p.waitReady("?require=leader")
			}
			cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Errorf("the caller ended with %v", err)
			}
			w.Close()
			reading.Wait()
			all := got.since(0)
			for _, line := range all {
				if strings.Contains(line, "FAILED") {
					t.Errorf("of %d calls: %s", len(all), line)
				}
			}
		})
	}
}

// begin starts a program that does not outlive the test.
func begin(t *testing.T, cmd *exec.Cmd, log *syncBuffer) {
	t.Helper()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%v said:\n%s", cmd.Args, tail(log.String(), 20))
		}
	})
}

// TestCurlWalk runs examples/curl.sh against muster dev.
func TestCurlWalk(t *testing.T) {
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	port := devPort(t)
	dev := &process{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", port), args: []string{"dev", "--port", fmt.Sprint(port)}}
	dev.start()
	t.Cleanup(func() {
		dev.signal(syscall.SIGTERM)
		if code := dev.wait(); code != 0 {
			t.Errorf("muster dev ended with %d\n%s", code, dev.log)
		}
	})
	other := fmt.Sprintf("http://127.0.0.1:%d", port+20)
	dev.waitReady("?require=leader")
	(&process{t: t, url: other, log: dev.log}).waitReady("?require=leader")

	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "bash", "../../examples/curl.sh", dev.url, other).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"10.0.0.5:8080\n", `"status":"maintenance"`, "event: change", `"reason":"retired"`, "That was all."} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it never printed %q:\n%s", want, out)
		}
	}
}

// devPort finds a port where muster dev has room for three nodes.
func devPort(t *testing.T) int {
	t.Helper()
	free := func(port int) bool {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		defer l.Close()
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			return false
		}
		return u.Close() == nil
	}
search:
	for range 100 {
		first := 20_000 + rand.IntN(12_000)
		for _, offset := range []int{0, 1, 2, 10, 11, 12, 20, 21, 22} {
			if !free(first + offset) {
				continue search
			}
		}
		return first
	}
	t.Fatal("no nine ports are free")
	return 0
}
