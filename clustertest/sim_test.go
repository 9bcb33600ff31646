package clustertest_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// The simulation: the real state machine, the real keeper of leases and real raft
// on several nodes in virtual time, under faults by script and by chance. Of every
// run is asked:
//
//   - early: no lease ended before its TTL had passed since the sending of its last
//     acknowledged heartbeat or registration. Ends are read from committed events.
//   - late: every lease whose owner fell silent was gone by the bound; see
//     (*history).latest.
//   - unknown, lost: nobody was told to register again whose lease lived, and no
//     lease ended whose owner did all he could.
//   - state: all nodes have the same in the end.
//
// The seed decides what happens and who there is; when exactly each goroutine runs
// it does not, so a run cannot be repeated to the letter.

var (
	simFailovers = flag.Int("sim.failovers", 2000, "failovers that the simulation makes by chance; 0: the scripts only")
	simSeed      = flag.Uint64("sim.seed", 1, "seed of the simulation; 0: by chance")
	simTrace     = flag.Bool("sim.trace", false, "print what happened in each run")
)

// simTally is what many runs came to.
type simTally struct {
	mu        sync.Mutex
	runs      int
	failovers int
	acks      int
	virtual   time.Duration
	stats     leaseStats
}

func (t *simTally) enough() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failovers >= *simFailovers
}

func (t *simTally) add(w *world, took time.Duration, s leaseStats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs++
	t.failovers += w.failovers()
	t.acks += w.acks
	t.virtual += took
	t.stats.add(s)
}

// TestSimulation runs worlds with faults by chance, until there have been as many
// failovers as asked for: about a minute with the race detector on two cores.
func TestSimulation(t *testing.T) {
	if *simFailovers == 0 || testing.Short() {
		t.Skip("only the scripts are asked for")
	}
	seed := *simSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	var sum simTally
	began := time.Now()
	t.Run("runs", func(t *testing.T) {
		for worker := range 2 {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for run := worker; !sum.enough() && run < *simFailovers && !t.Failed(); run += 2 {
					chance(t, &sum, seed, run)
				}
			})
		}
	})
	s := sum.stats
	line := fmt.Sprintf("%d runs, %d failovers, %.1f virtual hours, %d acknowledgements in %v; %d leases, %d hazy; ended",
		sum.runs, sum.failovers, sum.virtual.Hours(), sum.acks, time.Since(began).Round(time.Second), s.leases, s.hazy)
	for i, what := range []string{"while nothing happened", "in an outage without a failover", "across clean failovers", "with a fallback"} {
		line += fmt.Sprintf(" %d %s (at most %v after the TTL, %v before the bound);", s.ended[i], what, s.late[i].Round(time.Millisecond), s.left[i].Round(time.Millisecond))
		if !t.Failed() && s.ended[i] == 0 {
			t.Errorf("none ended %s: that bound was never put to the test", what)
		}
	}
	t.Log(line)
	if !t.Failed() && sum.failovers < *simFailovers {
		t.Errorf("got %d failovers, want at least %d", sum.failovers, *simFailovers)
	}
}

// chance is one run.
func chance(t *testing.T, sum *simTally, seed uint64, run int) {
	o := options{nodes: 3, seed: seed + uint64(run), snapshots: run%5 == 3, gentle: run%4 >= 2}
	if run%6 == 5 {
		o.nodes = 5
	}
	var stats leaseStats
	var took time.Duration
	w := simulate(t, o, func(w *world) {
		w.populate(9, time.Second, 1500*time.Millisecond, 2*time.Second, 3*time.Second, 5*time.Second, 10*time.Second)
		for range 60 {
			w.strike()
		}
		stats = w.finish(22 * time.Second)
		took = time.Since(w.began)
	})
	sum.add(w, took, stats)
	w.report(t)
	if len(w.violations) == 0 && *simTrace {
		t.Log(strings.Join(w.traced, "\n"))
	}
	if len(w.violations) > 0 {
		t.Logf("run %d of seed %d", run, seed)
	}
}

// finish heals nothing: it lets calm pass, and then checks everything.
func (w *world) finish(calm time.Duration) leaseStats {
	if !w.waitLeader(20 * time.Second) {
		w.fail("state", "no leader though nothing is broken")
	}
	w.sleep(calm)
	stats := w.checkLeases()
	w.checkStates()
	return stats
}
