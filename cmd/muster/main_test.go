package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/muster-registry/muster/bench"
)

// TestMain lets this test binary stand in for the muster binary: run under that
// name it is the real main, so that scripts and process tests try the whole
// program, flags and exit codes included.
func TestMain(m *testing.M) {
	if os.Getenv(actAsMuster) != "" {
		main()
		return
	}
	if order := os.Getenv(actAsFlood); order != "" {
		floodMain(order)
		return
	}
	testscript.Main(m, map[string]func(){"muster": main})
}

// actAsMuster makes the test binary act as muster; see startProcess.
const actAsMuster = "MUSTER_TEST_ACT_AS_MUSTER"

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			ports, err := bench.FreePorts(3)
			if err != nil {
				return err
			}
			env.Setenv("API", ports[0])
			env.Setenv("PEER", ports[1])
			env.Setenv("GOSSIP", ports[2])
			env.Setenv("MUSTER_ADDR", "http://"+ports[0])
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exitcode N COMMAND...: the command ends with that code.
			"exitcode": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := 0
				if exit, ok := errors.AsType[*exec.ExitError](err); ok {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("running %v: %v", args[1:], err)
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("%v ended with %d, want %s", args[1:], code, args[0])
				}
			},
			// listed SERVICE ID waits until the instance is there, unlisted until it is not.
			"listed":   func(ts *testscript.TestScript, _ bool, args []string) { waitListed(ts, args, 200) },
			"unlisted": func(ts *testscript.TestScript, _ bool, args []string) { waitListed(ts, args, 404) },
			// knows SERVICE ID REGEXP waits until what the balancer knows of the instance
			// matches.
			"knows": func(ts *testscript.TestScript, _ bool, args []string) { waitKnown(ts, args) },
			// appears FILE waits until the file is there.
			"appears": func(ts *testscript.TestScript, _ bool, args []string) { waitFile(ts, ts.MkAbs(args[0])) },
			"ready": func(ts *testscript.TestScript, _ bool, _ []string) {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				ts.Check(waitReady(ctx, ts.Getenv("MUSTER_ADDR")+"/readyz?require=leader"))
			},
		},
	})
}

func waitKnown(ts *testscript.TestScript, args []string) {
	want, err := regexp.Compile(`^[^{}]*` + args[2])
	ts.Check(err)
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, text, err := request(context.Background(), http.DefaultClient, "GET", ts.Getenv("MUSTER_ADDR")+servicePath(args[0])+"?view=balancer", "")
		_, known, _ := strings.Cut(text, `{"id":"`+args[1]+`",`)
		if known, _, _ = strings.Cut(known, "}"); err == nil && want.MatchString(known) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("waited %s for %s of %v, got %s (%v)", patience, args[2], args[:2], text, err)
		}
		<-tick.C
	}
}

func waitFile(ts *testscript.TestScript, path string) {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("waited %s for %s", patience, path)
		}
	}
}

func waitListed(ts *testscript.TestScript, args []string, want int) {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		status, _, err := request(context.Background(), http.DefaultClient, "GET", ts.Getenv("MUSTER_ADDR")+instancePath(args[0], args[1]), "")
		if err == nil && status == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v: waited %s for status %d, the last was %d (%v)", args, patience, want, status, err)
		}
		<-tick.C
	}
}
