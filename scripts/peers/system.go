package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// system is a registry, or what people build one on, of three nodes. Its calls but
// start and stop are used by many goroutines at once; client is the number of the
// caller, node that of a node from 0, n that of an instance.
type system interface {
	name() string
	version() string
	missing() string // why it cannot be measured here; "" if it can
	start(ctx context.Context, dir string) error
	stop()

	// register makes a new instance that has a lease of its own, registerShared one
	// under a lease of the caller's.
	register(ctx context.Context, client, n int) error
	registerShared(ctx context.Context, client, n int) error
	// keepalive renews the lease of an instance that register has made.
	keepalive(ctx context.Context, client, n int) error
	// fill makes a service of 100 instances, read reads it.
	fill(ctx context.Context) error
	read(ctx context.Context, client int, linearizable bool) error
	// watch calls told when a node has heard of a change, and what it is.
	watch(ctx context.Context, node int, told func()) (stop func(), err error)
	change(ctx context.Context, node, n int) error
	// write writes by one node alone.
	write(ctx context.Context, node, n int) error

	leader(ctx context.Context) (node int, err error)
	kill(node int) (sent time.Time)
	restart(ctx context.Context, node int) error
	pids() []int
}

// unsupported is why a system has no such work.
type unsupported string

func (u unsupported) Error() string { return string(u) }

// payload is an instance as it is stored where a registry does not say how.
const payload = `{"address":"10.0.0.5","port":8080,"version":"1.4.2","zone":"eu-1a","weight":100,"tags":["canary"],"meta":{"team":"pay"}}`

// proc is a process that can be killed and started again.
type proc struct {
	path string
	args []string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

func (p *proc) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Dir = filepath.Dir(p.log)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	cmd, done := p.cmd, make(chan struct{})
	p.done = done
	go func() { _ = cmd.Wait(); close(done) }()
	return nil
}

func (p *proc) kill() (sent time.Time) {
	sent = time.Now()
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Signal(syscall.SIGKILL)
		<-p.done
	}
	return sent
}

// trio is three such processes.
type trio []*proc

func (t trio) stop() {
	for _, p := range t {
		p.kill()
	}
}

func (t trio) pids() []int {
	var pids []int
	for _, p := range t {
		pids = append(pids, p.cmd.Process.Pid)
	}
	return pids
}

// usage is processor time, in seconds, of all processes, and the resident bytes of the
// largest, as Linux accounts for them: the same for every system.
func usage(pids []int) (cpu, resident float64, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, 0, err
		}
		// What follows the name, which may hold anything, begins with field 3.
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		var v [3]float64
		for n, place := range []int{14, 15, 24} { // utime, stime, rss; see proc_pid_stat(5)
			if v[n], err = strconv.ParseFloat(f[place-3], 64); err != nil {
				return 0, 0, err
			}
		}
		cpu += (v[0] + v[1]) / 100 // USER_HZ
		resident = max(resident, v[2]*float64(os.Getpagesize()))
	}
	return cpu, resident, nil
}

// patience is how long a state is waited for that must come.
const patience = 60 * time.Second

func until(ctx context.Context, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %s for %s", patience, what))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
