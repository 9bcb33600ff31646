package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// healLimit is how long the cluster may take after a fault until it is whole.
	healLimit = 60 * time.Second
	// slowHeal is from when on it is worth saying what it took so long.
	slowHeal = 5 * time.Second
	// smallDiskBytes is the size of the small disk.
	smallDiskBytes = 128 << 20
	progressEvery  = 5 * time.Second
)

// Config says what a run does.
type Config struct {
	// Duration is how long faults go on; the last of them may begin just before.
	Duration time.Duration
	// Seed decides the plan, and what the clients do.
	Seed uint64
	// Faults are the names of those to have; none: all that can be had here.
	Faults []string
	// Keep is a folder for histories and logs, which then stay; empty: a temporary
	// one, that stays when something is broken.
	Keep string
	// Nodes found the cluster: 3, the default, or 5.
	Nodes int
	// Args are more flags of each node.
	Args []string
	// Bounds is how much the checkers ask for.
	Bounds Bounds
	// Out is told how it goes.
	Out io.Writer
}

// brokenError is a broken promise, other than an error of the bench.
type brokenError struct{ what string }

func (b *brokenError) Error() string { return b.what }

func broken(format string, args ...any) error { return &brokenError{fmt.Sprintf(format, args...)} }

// runner is a run while it runs.
type runner struct {
	cfg     Config
	start   time.Time
	c       *Cluster
	history *History
	load    *Load
	rng     *rand.Rand

	mu     sync.Mutex // guards what follows
	report Report
	now    string // the fault that is on
}

// Run builds muster, starts a cluster, lets clients load it and faults happen to it
// for a time, heals it, and has the history checked. The error is of the bench; what
// the registry did wrong is in the report. When ctx ends, everything does, without
// verdict.
func Run(ctx context.Context, cfg Config) (rep *Report, err error) {
	if cfg.Nodes == 0 {
		cfg.Nodes = 3
	}
	r := &runner{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x6368616f73)), now: "none"}
	r.report = Report{Seed: cfg.Seed, Dir: cfg.Keep, Kept: cfg.Keep != ""}
	if cfg.Keep == "" {
		if r.report.Dir, err = os.MkdirTemp("", "muster-chaos-"); err != nil {
			return nil, fmt.Errorf("making a folder for the run: %w", err)
		}
	} else if err := os.MkdirAll(cfg.Keep, 0o755); err != nil {
		return nil, fmt.Errorf("making a folder for the run: %w", err)
	}
	if r.report.Dir, err = filepath.Abs(r.report.Dir); err != nil {
		return nil, fmt.Errorf("making a folder for the run: %w", err)
	}
	err = r.run(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	rep = &r.report
	rep.Kept = rep.Kept || ctx.Err() == nil && (err != nil || !rep.OK())
	_ = os.Remove(r.binary())
	if !rep.Kept {
		err = errors.Join(err, os.RemoveAll(rep.Dir))
	}
	return rep, err
}

func (r *runner) binary() string { return filepath.Join(r.report.Dir, "muster") }

func (r *runner) say(format string, args ...any) {
	fmt.Fprintf(r.cfg.Out, "[%5.1fs] %s\n", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

// broke notes a broken promise.
func (r *runner) broke(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	r.say("BROKEN: %s", what)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Broken = append(r.report.Broken, fmt.Sprintf("%5.1fs, %s: %s", time.Since(r.start).Seconds(), r.now, what))
}

func (r *runner) run(ctx context.Context) error {
	r.start = time.Now()
	r.say("seed %d: building muster", r.cfg.Seed)
	if err := build(ctx, r.binary()); err != nil {
		return err
	}
	deck, err := r.setUp()
	if err != nil {
		return err
	}
	defer r.c.Close()
	if r.history, err = NewHistory(r.report.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.history.Close()) }()
	sctx, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	if err := r.c.Start(sctx); err != nil {
		return fmt.Errorf("starting the cluster: %w", err)
	}
	r.start = time.Now()
	return r.play(ctx, deck)
}

// build makes the binary of the nodes, with the faults built in.
func build(ctx context.Context, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "faults", "-o", to, "github.com/muster-registry/muster/cmd/muster")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building muster: %w\n%s", err, out)
	}
	return nil
}

// setUp prepares the cluster and returns the faults that can be had.
func (r *runner) setUp() (deck []row, err error) {
	cfg := ClusterConfig{
		Dir: r.report.Dir, Binary: r.binary(), Nodes: r.cfg.Nodes, Args: r.cfg.Args, Broken: r.broke,
		Spare: 2, SmallDisk: smallDiskBytes,
	}
	if r.c, err = NewCluster(cfg); err != nil {
		return nil, err
	}
	if r.c.NoNetwork != nil {
		r.say("no network namespaces, so the nodes are on loopback and only processes and disks have faults: %v", r.c.NoNetwork)
	}
	missing := map[need]error{needsNetwork: r.c.NoNetwork, needsSmallDisk: r.c.NoSmallDisk}
	for _, f := range faults {
		asked := slices.Contains(r.cfg.Faults, f.name)
		switch why := missing[f.need]; {
		case len(r.cfg.Faults) > 0 && !asked:
		case why != nil && asked:
			r.c.Close()
			return nil, fmt.Errorf("the fault %s cannot be had here: %w", f.name, why)
		case why == nil:
			deck = append(deck, f)
		}
	}
	for _, name := range r.cfg.Faults {
		if !slices.ContainsFunc(faults, func(f row) bool { return f.name == name }) {
			r.c.Close()
			return nil, fmt.Errorf("there is no fault %q; there are: %s", name, strings.Join(Names(), " "))
		}
	}
	return deck, nil
}

// Names are the names of all faults.
func Names() []string {
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// play runs load and faults side by side, and then the end.
func (r *runner) play(ctx context.Context, deck []row) error {
	r.load = &Load{URLs: r.c.URLs(), History: r.history, Seed: r.cfg.Seed}
	lctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var loadErr error
	wg.Go(func() { loadErr = r.load.Run(lctx) })
	wg.Go(func() { r.progress(lctx) })
	err := r.faults(ctx, deck)
	stop()
	wg.Wait()
	r.mu.Lock()
	r.report.Elapsed = time.Since(r.start)
	r.mu.Unlock()
	if err = errors.Join(err, loadErr, ctx.Err()); err != nil {
		return err
	}
	if err := r.load.Final(ctx); err != nil {
		r.broke("after the last fault: %v", err)
	}
	r.c.Stop()
	r.say("checking the history")
	verdict, err := Check(r.history, r.spans(), r.cfg.Bounds)
	if err != nil {
		return fmt.Errorf("checking the history: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Verdict = verdict
	return ctx.Err()
}

// faults injects one fault after the other until the time is over.
func (r *runner) faults(ctx context.Context, deck []row) error {
	var left []row
	if err := wait(ctx, between(r.rng, 1, 3)); err != nil {
		return err
	}
	for time.Since(r.start) < r.cfg.Duration && len(deck) > 0 {
		if len(left) == 0 {
			left = slices.Clone(deck)
			r.rng.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
		}
		whole, err := r.fault(ctx, left[0])
		if err != nil || !whole {
			return err
		}
		left = left[1:]
		if err := wait(ctx, between(r.rng, 1, 4)); err != nil {
			return err
		}
	}
	return nil
}

// fault is one fault from its injection until the cluster is whole again; whole is
// false if it did not become so.
func (r *runner) fault(ctx context.Context, kind row) (whole bool, err error) {
	span := &FaultSpan{Fault: kind.name, Stall: kind.stall, Start: time.Now()}
	// A source of its own: what one fault draws does not change the next.
	rng := rand.New(rand.NewPCG(r.rng.Uint64(), r.rng.Uint64()))
	f := &injection{ctx: ctx, c: r.c, rng: rng, span: span, dir: r.report.Dir}
	r.mu.Lock()
	r.now = kind.name
	r.mu.Unlock()
	term, _ := r.c.Term(ctx)
	before := r.c.elections(ctx)
	err = kind.inject(f)
	if err == nil {
		r.say("%s%s", span, noted(span))
		err = f.wait(kind.hold[0], kind.hold[1])
	}
	var b *brokenError
	if errors.As(err, &b) {
		r.broke("%s: %s", span, b.what)
	} else if err != nil {
		return false, fmt.Errorf("%s: %w", span, err)
	}
	span.Heal = time.Now()
	lacked, err := r.heal(ctx)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	span.Healed = time.Now()
	if took := span.Healed.Sub(span.Heal); took > slowHeal && lacked != nil {
		f.note("whole after %.1fs, at last %v", took.Seconds(), lacked)
	}
	if now, _ := r.c.Term(ctx); now > term {
		span.Elections = now - term
	}
	for life, count := range r.c.elections(ctx) {
		span.FastElections += count - before[life]
	}
	r.mu.Lock()
	r.now = "none"
	r.report.Spans = append(r.report.Spans, *span)
	r.mu.Unlock()
	if err != nil {
		r.broke("after %s: %v", span, err)
		return false, nil
	}
	if !kind.died && span.FastElections > 0 {
		r.broke("%s: %d elections begun because the leader's process was gone, which it was not", span, span.FastElections)
	}
	r.say("%s healed: %.1fs, whole again after %.1fs, terms +%d%s", span, span.Heal.Sub(span.Start).Seconds(), span.Healed.Sub(span.Heal).Seconds(), span.Elections, noted(span))
	return true, nil
}

// noted is the note of a span, to be said after it.
func noted(s *FaultSpan) string {
	if s.Note == "" {
		return ""
	}
	return ": " + s.Note
}

// heal undoes all faults, waits until the cluster is whole, and returns what was
// lacking last.
func (r *runner) heal(ctx context.Context) (lacked, err error) {
	if err := r.c.Heal(); err != nil {
		return nil, err
	}
	for _, n := range r.c.Nodes() {
		if !n.Alive() {
			if err := n.Start(); err != nil {
				return nil, err
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	return r.c.WaitWhole(ctx, r.cfg.Nodes)
}

func (r *runner) spans() []FaultSpan {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.report.Spans)
}

// progress says now and then how it goes.
func (r *runner) progress(ctx context.Context) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all, ok := r.history.Count()
		r.mu.Lock()
		now, count := r.now, len(r.report.Spans)
		r.mu.Unlock()
		r.say("%d of %s: %d attempts, %d went well; %d faults so far, now: %s",
			int(time.Since(r.start).Seconds()), r.cfg.Duration, all, ok, count, now)
	}
}
