package chaos_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster/chaos"
)

var (
	duration = flag.Duration("chaos.duration", 0, "how long faults go on; 0: a short run of a few")
	seed     = flag.Uint64("chaos.seed", 0, "decides the plan; 0: any")
	only     = flag.String("chaos.faults", "", "names of the faults to have, with commas; empty: all")
	keep     = flag.String("chaos.keep", "", "folder that keeps history and logs, whatever happens")
	nodes    = flag.Int("chaos.nodes", 3, "how many nodes found the cluster")
	args     = flag.String("chaos.args", "", "more flags of the nodes, with spaces")
)

// TestChaos runs the fault suite. Without -chaos.duration it is a short run: enough to
// see that the suite works, kind to a machine that does other things.
func TestChaos(t *testing.T) {
	cfg := chaos.Config{Duration: *duration, Seed: *seed, Keep: *keep, Nodes: *nodes, Args: strings.Fields(*args), Out: os.Stderr}
	if *only != "" {
		cfg.Faults = strings.Split(*only, ",")
	}
	if *duration == 0 {
		if testing.Short() {
			t.Skip("a short run of tests has no faults of processes")
		}
		cfg.Duration, cfg.Bounds.Short = 10*time.Second, true
		if *only == "" {
			cfg.Faults = []string{"kill-leader", "pause-follower", "slow-disk"}
		}
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64N(1_000_000) + 1
	}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := chaos.Run(ctx, cfg)
	if ctx.Err() != nil {
		t.Fatal("interrupted: all processes have been ended, and nothing was checked")
	}
	if err != nil {
		t.Error(err)
	}
	if report == nil {
		return
	}
	report.Write(os.Stderr)
	if !report.OK() {
		t.Fail()
	}
}
