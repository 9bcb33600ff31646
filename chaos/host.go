package chaos

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
)

// host is a machine of the bench: a thread of this process that may live in
// namespaces of its own. What runs on it, and the processes it starts, are there.
// The namespaces are without name and end with the thread and the processes, so that
// nothing is left of a run however it ends. Its methods may be called concurrently.
type host struct {
	name string
	addr string // address that the others and the clients reach it at
	work chan func()
	done chan struct{}
}

// newHost starts a host; enter takes its thread into its namespaces and may be nil.
func newHost(name, addr string, enter func() error) (*host, error) {
	h := &host{name: name, addr: addr, work: make(chan func()), done: make(chan struct{})}
	entered := make(chan error, 1)
	go func() {
		defer close(h.done)
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others and ends
		var err error
		if enter != nil {
			err = enter()
		}
		if entered <- err; err != nil {
			return
		}
		for f := range h.work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("making the host %s: %w", name, err)
	}
	return h, nil
}

// do runs f on the host, one f after the other.
func (h *host) do(f func() error) error {
	result := make(chan error, 1)
	h.work <- func() { result <- f() }
	return <-result
}

// command runs a command on the host, with that text as its input.
func (h *host) command(stdin, name string, args ...string) error {
	return h.do(func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s on %s: %w: %s%s", name, strings.Join(args, " "), h.name, err, out, stdin)
		}
		return nil
	})
}

// commands runs command lines on the host, one after the other, until one fails.
func (h *host) commands(lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if err := h.command("", words[0], words[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// close ends the host. Nothing may run on it any more.
func (h *host) close() {
	close(h.work)
	<-h.done
}
