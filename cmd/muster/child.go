package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/muster-registry/muster"
)

// The exit codes of a command that could not be run, as shells have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // plus the number of the signal
)

// childExit ends this process with the exit code of a command it ran, which has
// said itself what was the matter.
type childExit int

func (e childExit) Error() string { return fmt.Sprintf("the command ended with %d", int(e)) }
func (e childExit) ExitCode() int { return int(e) }

// findCommand looks for a command as a shell does.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return "", &codedExit{exitNotFound, fmt.Errorf("the command cannot be run: %w", err)}
	}
	return "", &codedExit{exitNotExecutable, fmt.Errorf("the command cannot be run: %w", err)}
}

// ended is how a command ended.
type ended struct {
	code int
	// asked: a signal that this process was sent, and passed on, came before the end.
	asked bool
}

// passedOn are the signals that a command is sent on.
var passedOn = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// child is a command that runs on this process's own input and output.
type child struct {
	cmd     *exec.Cmd
	signals chan os.Signal
	done    chan error
}

// startChild starts a command; from then on the signals are the child's, and wait is
// to be called.
func startChild(cmd *cobra.Command, path string, args, env []string) (*child, error) {
	c := &child{cmd: exec.Command(path, args[1:]...), signals: make(chan os.Signal, len(passedOn)), done: make(chan error, 1)}
	c.cmd.Args[0] = args[0]
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	c.cmd.Env = append(os.Environ(), env...)
	signal.Notify(c.signals, passedOn...)
	if err := c.cmd.Start(); err != nil {
		signal.Stop(c.signals)
		return nil, &codedExit{exitNotExecutable, fmt.Errorf("the command cannot be run: %w", err)}
	}
	go func() { c.done <- c.cmd.Wait() }()
	return c, nil
}

// wait passes signals on until the command has ended. before, unless it is nil, is
// called at the first SIGINT or SIGTERM, which the command is sent when before has
// returned; at another one, or when the command has ended by itself, its context
// ends.
func (c *child) wait(before func(context.Context)) (ended, error) {
	defer signal.Stop(c.signals)
	ctx, cancel := context.WithCancel(context.Background())
	var prepared chan struct{} // closed when before has returned
	defer func() {
		cancel()
		if prepared != nil {
			<-prepared
		}
	}()
	var end ended
	var held os.Signal
	ready := make(chan struct{}, 1)
	for {
		select {
		case s := <-c.signals:
			end.asked = end.asked || slices.Contains([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, s)
			both, stops := sentToBoth(s), s == syscall.SIGINT || s == syscall.SIGTERM
			if stops && before != nil && prepared == nil {
				prepared = make(chan struct{})
				go func() {
					defer close(prepared)
					before(ctx)
					ready <- struct{}{}
				}()
				if !both {
					held = s
					continue
				}
			}
			if stops {
				cancel() // asked twice, or it ends already: in a hurry
				held = nil
			}
			if !both {
				_ = c.cmd.Process.Signal(s) // it may have ended meanwhile
			}
		case <-ready:
			if held != nil {
				_ = c.cmd.Process.Signal(held)
			}
		case err := <-c.done:
			end.code = c.cmd.ProcessState.ExitCode()
			if ws, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				end.code = exitSignal + int(ws.Signal())
			}
			if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
				return end, fmt.Errorf("waiting for the command: %w", err)
			}
			return end, nil
		}
	}
}

// instanceEnv tells a command about an instance: MUSTER_<kind>_ADDRESS and so on.
// The kind keeps these names apart from MUSTER_<FLAG>, which would be flags to a
// muster that the command calls.
func instanceEnv(kind string, i *muster.Instance) []string {
	namespace := i.Namespace
	if namespace == "" {
		namespace = muster.DefaultNamespace
	}
	prefix := "MUSTER_" + kind + "_"
	return []string{
		prefix + "NAMESPACE=" + namespace, prefix + "SERVICE=" + i.Service, prefix + "INSTANCE=" + i.ID,
		prefix + "ADDRESS=" + i.Address, prefix + "PORT=" + strconv.Itoa(i.Port),
	}
}

// sentToBoth reports whether a signal is one of the keyboard's, which a terminal
// sends to the command too.
func sentToBoth(s os.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT {
		return false
	}
	group, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
