// Command mutants proves that the tests find bugs. It builds the rooms with the
// tag "faults", demands that the tests named in fault.Bugs pass with no bug switched
// on, and then that each fails, with the message that is expected of it, with its
// own. It ends with 1 when a bug survives.
//
//	go run ./scripts/mutants [-run REGEXP] [-v]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/muster-registry/muster/fault"
)

// limit is how long one run of a test may take.
const limit = 3 * time.Minute

var (
	only    = flag.String("run", "", "only the bugs whose names match")
	verbose = flag.Bool("v", false, "print what the tests print")
)

func main() {
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w := &workshop{dir: dir, built: map[string]string{}, healthy: map[string]error{}}
	if err := w.ofItself(ctx); err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "BUG\tPROMISE\tTEST\tVERDICT\tSECONDS")
	bugs, bad := 0, 0
	began := time.Now()
	for _, r := range fault.Bugs {
		if !wanted.MatchString(string(r.Bug)) {
			continue
		}
		bugs++
		survived := false
		for _, c := range r.Caught {
			start := time.Now()
			verdict := "caught"
			if err := w.try(ctx, r.Bug, c); err != nil {
				verdict, survived = strings.ToUpper(err.Error()), true
			}
			fmt.Fprintf(table, "%s\t%s\t%s %s\t%s\t%.1f\n", r.Bug, r.Promise, c.Room, c.Test, verdict, time.Since(start).Seconds())
			fmt.Fprintf(os.Stderr, "%s: %s %s: %s (%.1f s)\n", r.Bug, c.Room, c.Test, verdict, time.Since(start).Seconds())
		}
		if survived {
			bad++
		}
	}
	table.Flush()
	fmt.Printf("%d bugs, %d not caught by all that should, in %v\n", bugs, bad, time.Since(began).Round(time.Second))
	if bad > 0 || bugs == 0 {
		return fmt.Errorf("%d of %d bugs are not caught", bad, bugs)
	}
	return nil
}

// workshop holds what was built and tried.
type workshop struct {
	dir     string
	built   map[string]string // test binaries, by room
	healthy map[string]error  // what became of tests without a bug, by room and test
}

// ofItself tests the switches.
func (w *workshop) ofItself(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-tags", "faults", "./fault", "./cluster/logstore")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the switches do not work: %w\n%s", err, out)
	}
	return nil
}

// try demands that the test passes without the bug, and fails for the right reason
// with it.
func (w *workshop) try(ctx context.Context, bug fault.Bug, c fault.Catch) error {
	binary, err := w.build(ctx, c.Room)
	if err != nil {
		return err
	}
	key := c.Room + " " + c.Test
	if _, done := w.healthy[key]; !done {
		out, err := w.test(ctx, binary, c, "")
		switch {
		case err != nil:
			w.healthy[key] = fmt.Errorf("fails without a bug: %w", err)
			fmt.Fprintf(os.Stderr, "%s\n", out)
		case !strings.Contains(out, "--- PASS: "+written(c.Test)+" "):
			w.healthy[key] = fmt.Errorf("there is no such test, or it was skipped")
		default:
			w.healthy[key] = nil
		}
	}
	if err := w.healthy[key]; err != nil {
		return err
	}
	out, err := w.test(ctx, binary, c, bug)
	switch {
	case err == nil:
		err = fmt.Errorf("survives")
	case !strings.Contains(out, "--- FAIL: "+written(c.Test)+" "):
		err = fmt.Errorf("fails otherwise: %w", err)
	case !regexp.MustCompile(c.Says).MatchString(out):
		err = fmt.Errorf("fails without saying %q", c.Says)
	default:
		err = nil
	}
	if err != nil || *verbose {
		fmt.Fprintf(os.Stderr, "%s\n", out)
	}
	return err
}

// build makes the test binary of a room, once.
func (w *workshop) build(ctx context.Context, room string) (string, error) {
	if path := w.built[room]; path != "" {
		return path, nil
	}
	path := filepath.Join(w.dir, strings.ReplaceAll(room, "/", "-")+".test")
	out, err := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "faults", "-o", path, "./"+room).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("does not build: %w\n%s", err, out)
	}
	w.built[room] = path
	return path, nil
}

// test runs one test in its room's folder.
func (w *workshop) test(ctx context.Context, binary string, c fault.Catch, bug fault.Bug) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit+10*time.Second)
	defer cancel()
	parts := strings.Split(c.Test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.timeout", limit.String(), "-test.run", strings.Join(parts, "/"))
	cmd.Dir = c.Room
	cmd.Env = append(os.Environ(), "MUSTER_FAULT="+string(bug))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// written is how go test writes the name of a test.
func written(test string) string { return strings.ReplaceAll(test, " ", "_") }
