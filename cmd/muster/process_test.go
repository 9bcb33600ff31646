package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster/bench"
)

// patience is how long a test waits for a state that must come.
const patience = 90 * time.Second

// process is one node as a process of its own: this test binary acting as muster.
type process struct {
	t    testing.TB
	args []string
	// exe is the binary to run; empty: this one.
	exe string
	// within is a command that the process is started by, if any.
	within []string
	url    string
	cmd    *exec.Cmd
	log    *syncBuffer
	done   chan struct{} // closed when the process has ended
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newCluster prepares count nodes that know each other; start starts them.
func newCluster(t testing.TB, count int) []*process {
	t.Helper()
	dir := t.TempDir()
	ports, err := bench.FreePorts(3 * count)
	if err != nil {
		t.Fatal(err)
	}
	var seeds []string
	for n := range count {
		seeds = append(seeds, ports[3*n+2])
	}
	nodes := make([]*process, count)
	for n := range count {
		name := fmt.Sprintf("n%d", n+1)
		nodes[n] = &process{t: t, url: "http://" + ports[3*n], args: []string{
			"server", "--name", name, "--data-dir", filepath.Join(dir, name),
			"--api-addr", ports[3*n], "--peer-addr", ports[3*n+1], "--gossip-addr", ports[3*n+2],
			"--bootstrap-expect", fmt.Sprint(count), "--join", strings.Join(seeds, ","), "--raft-profile", "default",
		}}
	}
	t.Cleanup(func() {
		for _, p := range nodes {
			p.signal(syscall.SIGKILL)
			p.wait()
			if t.Failed() && p.log != nil {
				t.Logf("log of %s:\n%s", p.url, tail(p.log.String(), 60))
			}
		}
	})
	return nodes
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// start starts the process, again if it has ended.
func (p *process) start() {
	p.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	if p.log == nil {
		p.log = &syncBuffer{}
	}
	if p.exe != "" {
		exe = p.exe
	}
	line := slices.Concat(p.within, []string{exe}, p.args)
	p.cmd = exec.Command(line[0], line[1:]...)
	p.cmd.Env = append(os.Environ(), actAsMuster+"=1")
	p.cmd.Stderr, p.cmd.Stdout = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	p.done = done
	go func() {
		p.cmd.Wait()
		close(done)
	}()
}

func (p *process) signal(s os.Signal) {
	if p.cmd != nil {
		p.cmd.Process.Signal(s)
	}
}

// wait waits for the end of the process and returns its exit code.
func (p *process) wait() int {
	if p.cmd == nil {
		return 0
	}
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.cmd.Process.Kill()
		p.t.Errorf("%s did not end in %s", p.url, patience)
		return -1
	}
}

func (p *process) waitReady(query string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := waitReady(ctx, p.url+"/readyz"+query); err != nil {
		p.t.Fatalf("%s is not ready: %v\n%s", p.url, err, tail(p.log.String(), 30))
	}
}

// request sends one request and returns status and body; err is of the transport.
func request(ctx context.Context, client *http.Client, method, url, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), errors.Join(err, resp.Body.Close())
}

// leaderOf asks the nodes who leads, until one of the asked ones does.
func leaderOf(t testing.TB, nodes []*process) *process {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		for _, p := range nodes {
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{"leader", "--addr", p.url}, &out, &errs)
			if code != 0 {
				continue
			}
			for _, q := range nodes {
				if strings.Contains(out.String(), strings.TrimPrefix(q.url, "http://")) && q.alive() {
					return q
				}
			}
		}
	}
	t.Fatal("no leader")
	return nil
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
