// Command peers does the same work on Muster, etcd and ZooKeeper, each a cluster of
// three processes on loopback with data in a temporary directory, and prints what it
// took and the ratios. scripts/bench-peers.sh runs it. It is a module of its own, so
// that the clients of the others are no dependencies of Muster.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/muster-registry/muster/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	muster   string
	duration time.Duration
	clients  int
	kills    int
	output   string
}

func run(ctx context.Context) error {
	var s settings
	flag.StringVar(&s.muster, "muster", "bin/muster", "the binary of Muster")
	flag.DurationVar(&s.duration, "duration", 2*time.Second, "how long each row is measured")
	flag.IntVar(&s.clients, "clients", 64, "how many requests are under way at once")
	flag.IntVar(&s.kills, "kills", 5, "how often each leader is killed")
	flag.StringVar(&s.output, "o", "text", "text, markdown or json")
	flag.Parse()
	if s.output != "text" && s.output != "markdown" && s.output != "json" {
		return fmt.Errorf("-o is %q, not text, markdown or json", s.output)
	}
	if s.duration < 50*time.Millisecond || s.clients < 1 || s.kills < 1 || flag.NArg() > 0 {
		return errors.New("nothing to do: see --help")
	}
	report, err := measure(ctx, s)
	if err != nil {
		return err
	}
	if s.output == "json" {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	return report.write(os.Stdout, s.output == "markdown")
}

// measure starts those systems that are installed and gives them the same work.
func measure(ctx context.Context, s settings) (report *report, err error) {
	dir, err := os.MkdirTemp("", "muster-peers-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	report = newReport(s)
	all := []system{&musterSystem{binary: s.muster}, &etcdSystem{}, &zkSystem{}}
	var systems []system
	for _, sys := range all {
		if why := sys.missing(); why != "" {
			report.Missing = append(report.Missing, sys.name()+": "+why)
			fmt.Fprintf(os.Stderr, "%s is left out: %s\n", sys.name(), why)
			continue
		}
		fmt.Fprintf(os.Stderr, "starting three nodes of %s\n", sys.name())
		home := filepath.Join(dir, strings.ToLower(sys.name()))
		if err := os.Mkdir(home, 0o700); err != nil {
			return nil, err
		}
		defer sys.stop()
		if err := sys.start(ctx, home); err != nil {
			return nil, fmt.Errorf("starting %s: %w", sys.name(), err)
		}
		if err := s.warm(ctx, sys); err != nil {
			return nil, fmt.Errorf("warming %s: %w", sys.name(), err)
		}
		report.Versions[sys.name()] = sys.version()
		systems = append(systems, sys)
	}
	for _, w := range works(s) {
		for _, sys := range systems {
			r, err := w.do(ctx, sys)
			var cannot unsupported
			switch {
			case errors.As(err, &cannot):
				r = row{Skipped: string(cannot)}
			case err != nil:
				return nil, fmt.Errorf("%s of %s: %w", w.name, sys.name(), err)
			}
			r.Work, r.System = w.name, sys.name()
			report.add(r)
			fmt.Fprintf(os.Stderr, "%s, %s: %s\n", w.name, sys.name(), strings.Join(r.cells(), " "))
		}
	}
	report.Machine = bench.Describe()
	return report, nil
}
