// Command muster is a service registry in one binary: "muster server" runs a
// node, "muster dev" a throw-away cluster in one process, and the other verbs
// talk to a running cluster over its HTTP API.
//
// It holds flags, environment, configuration file, signals and exit codes, and
// nothing else: a node is assembled by package node, which is not for this
// command alone.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/muster-registry/muster"
)

// version is set by the build.
var version = "dev"

// The exit codes (those above 2 follow BSD's sysexits.h).
const (
	exitOK     = 0
	exitError  = 1
	exitUsage  = 2
	exitConfig = 78 // configuration, or a data directory in use
)

func main() {
	// The first signal asks for a graceful stop, the second ends the process at
	// once: stop() below gives signals their default meaning back.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if _, said := errors.AsType[childExit](err); !said {
		printError(stderr, err)
	}
	return exitCode(err)
}

// exitError is an error with an exit code of its own.
type exitCoder interface{ ExitCode() int }

type codedExit struct {
	code int
	err  error
}

func (e *codedExit) Error() string { return e.err.Error() }
func (e *codedExit) Unwrap() error { return e.err }
func (e *codedExit) ExitCode() int { return e.code }

func usageError(format string, args ...any) error {
	return &codedExit{exitUsage, fmt.Errorf(format, args...)}
}

func configError(format string, args ...any) error {
	return &codedExit{exitConfig, fmt.Errorf(format, args...)}
}

func exitCode(err error) int {
	var e exitCoder
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return exitError
}

// brief is an error in half a line: what a node, or the client, says of it, without
// its causes.
func brief(err error) string {
	if e, ok := errors.AsType[*muster.Error](err); ok {
		return fmt.Sprintf("%s (%s)", e.Detail, e.Code)
	}
	return err.Error()
}

// printError writes one line for people, and the hint below it.
func printError(w io.Writer, err error) {
	e, ok := errors.AsType[*muster.Error](err)
	if !ok {
		fmt.Fprintf(w, "muster: %v\n", err)
		return
	}
	fmt.Fprintf(w, "muster: %s (%s)\n", e.Detail, e.Code)
	for _, f := range e.Fields {
		if len(e.Fields) > 1 {
			fmt.Fprintf(w, "  %s: %s\n", f.Pointer, f.Detail)
		}
	}
	if hint := hintFor(e); hint != "" {
		fmt.Fprintf(w, "  %s\n", hint)
	}
}
