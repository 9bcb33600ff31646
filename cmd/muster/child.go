package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
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

// runChild runs a command on this process's own input and output until it ends.
func runChild(cmd *cobra.Command, path string, args, env []string) (ended, error) {
	signals := make(chan os.Signal, len(passedOn))
	signal.Notify(signals, passedOn...)
	defer signal.Stop(signals)
	c := exec.Command(path, args[1:]...)
	c.Args[0] = args[0]
	c.Stdin, c.Stdout, c.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	c.Env = append(os.Environ(), env...)
	if err := c.Start(); err != nil {
		return ended{}, &codedExit{exitNotExecutable, fmt.Errorf("the command cannot be run: %w", err)}
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	var end ended
	for {
		select {
		case s := <-signals:
			end.asked = end.asked || slices.Contains([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, s)
			if !sentToBoth(s) {
				_ = c.Process.Signal(s) // it may have ended meanwhile
			}
		case err := <-done:
			end.code = c.ProcessState.ExitCode()
			if ws, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				end.code = exitSignal + int(ws.Signal())
			}
			if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
				return end, fmt.Errorf("waiting for the command: %w", err)
			}
			return end, nil
		}
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
