package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster/bench"
)

func newBench(g *global) *cobra.Command {
	v := benchVerb{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a registry: throughput, latency, processor time, memory",
		Long: `Measure a cluster of three processes that it starts on loopback, with data in a
temporary folder that is removed at the end; or, with --addr, a running one.

Throughput, latencies (p50, p99, max), processor time of the nodes for 1,000 operations
and memory of each scenario; where there is a floor (a bare net/http server that answers
the same bytes, a bare hashicorp/raft cluster) it is measured in turn with it and the
ratio is shown. --list names the scenarios. Load and nodes share the cores of a machine
unless --addr is elsewhere: two runs compare where nothing else runs beside them.

A running cluster is measured only where --addr is on the command line: MUSTER_ADDR and
the configuration's addr do not count. What is put into it lies in a namespace of its
own, bench-…, and is deregistered at the end, also when the run is interrupted. There it
kills nothing, makes some 2,600 instances, and runs footprint (100,000 instances) and
expiry only where --run names them in full; expiry then lets 5 leases run out, or 5 % of
all others where that is more: less than makes the governor hold those of others.

Each change is in the journal all the same, which keeps 10,000 transitions: a run with
the defaults adds some 6,000, and 330 for each further second of --duration, and that
many older ones are forgotten. "--run register" makes 5,000 instances, and with their
removal that is the whole journal; footprint, besides, pushes out the 65,536 memories of
instances that are gone. The load takes what the nodes have to give.`,
		Example: `  muster bench
  muster bench --run register,heartbeat --duration 10s
  muster bench --run 'read/.*/follower' -o json > reads.json
  muster bench --addr http://10.0.1.1:7400 --run read --clients 200
  muster bench -o markdown --json bench.json > bench.md`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return v.run(cmd, g) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&v.only, "run", nil, "scenarios to run: regular expressions of their names (default: all)")
	f.DurationVar(&v.cfg.Duration, "duration", bench.DefaultDuration, "how long each scenario is measured, 50ms to 10m")
	f.IntVar(&v.cfg.Clients, "clients", bench.DefaultClients, "how many requests are under way at once, 1 to 1024")
	f.StringVar(&v.file, "json", "", "write the report into this file too, as JSON")
	f.BoolVar(&v.cfg.Quick, "quick", false, "try every scenario in small, for moments: the figures mean nothing")
	f.BoolVar(&v.list, "list", false, "name the scenarios and end")
	// Its own, as no other verb writes Markdown.
	f.StringVarP(&v.output, "output", "o", "text", "what to print: text for people, json for programs, markdown for documents")
	return cmd
}

// benchVerb is the verb bench.
type benchVerb struct {
	cfg    bench.Config
	only   []string
	file   string
	output string
	list   bool
}

func (v *benchVerb) run(cmd *cobra.Command, g *global) error {
	if v.output != "text" && v.output != "json" && v.output != "markdown" {
		return usageError("--output is %q, not text, json or markdown", v.output)
	}
	if v.list {
		return v.printList(cmd)
	}
	cfg, err := v.config(cmd, g)
	if err != nil {
		return err
	}
	bar := newBenchBar(cmd.ErrOrStderr(), !isTerminal(cmd.OutOrStdout()) || v.output != "text")
	cfg.Progress = bar.show
	fmt.Fprintf(cmd.ErrOrStderr(), "measuring %s\n", benchTarget(cfg, cmd.Flags().Changed("addr")))
	report, err := bench.Run(cmd.Context(), cfg)
	bar.close()
	if report == nil {
		return err
	}
	// What was measured before it went wrong is worth having.
	if v.file != "" {
		err = errors.Join(err, writeReport(v.file, report))
	}
	return errors.Join(err, v.print(cmd, report))
}

// benchTarget says what is measured; addrSet: there is an address from some source.
func benchTarget(cfg bench.Config, addrSet bool) string {
	switch {
	case len(cfg.Addrs) > 0:
		return "the running cluster at " + strings.Join(cfg.Addrs, ", ")
	case addrSet:
		return "a cluster that is started for it (an address of the environment or the configuration is not used: --addr measures a running one)"
	}
	return "a cluster that is started for it"
}

func (v *benchVerb) config(cmd *cobra.Command, g *global) (bench.Config, error) {
	cfg := v.cfg
	cfg.Version = version
	flags := cmd.Flags()
	if cfg.Quick && !flags.Changed("duration") {
		cfg.Duration = 0 // a quick run has its own
	}
	if cfg.Quick && !flags.Changed("clients") {
		cfg.Clients = 0
	}
	if len(v.only) > 0 {
		only, err := regexp.Compile(strings.Join(v.only, "|"))
		if err != nil {
			return cfg, usageError("--run: %w", err)
		}
		cfg.Only = only
	}
	if g.addrGiven { // an address that merely lies about may be that of production
		a, err := newAPI(g)
		if err != nil {
			return cfg, err
		}
		cfg.Addrs = a.addrs
	}
	transport, err := newTransport(g.caFile)
	if err != nil {
		return cfg, err
	}
	cfg.TLS = transport.TLSClientConfig
	if cfg.Command, err = selfCommand(cmd.Root()); err != nil {
		return cfg, err
	}
	if flags.Changed("clients") && cfg.Clients < 1 || flags.Changed("duration") && cfg.Duration <= 0 {
		return cfg, usageError("--clients and --duration are more than nothing")
	}
	if err := cfg.Check(); err != nil {
		return cfg, usageError("%w (see %q)", err, "muster bench --help")
	}
	return cfg, nil
}

// selfCommand makes commands of this very program, whose flags come from the command
// line alone.
func selfCommand(root *cobra.Command) (func(args ...string) *exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	ours := map[string]bool{envName("config"): true}
	for name := range flagNames(root) {
		ours[envName(name)] = true
	}
	var env []string
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); !ours[name] && !strings.HasPrefix(name, "OTEL_") {
			env = append(env, kv)
		}
	}
	return func(args ...string) *exec.Cmd {
		cmd := exec.Command(self, args...)
		cmd.Env = env
		return cmd
	}, nil
}

func (v *benchVerb) print(cmd *cobra.Command, report *bench.Report) error {
	switch v.output {
	case "json":
		return printJSON(cmd, report)
	case "markdown":
		return report.WriteMarkdown(cmd.OutOrStdout())
	}
	return report.WriteText(cmd.OutOrStdout())
}

func (v *benchVerb) printList(cmd *cobra.Command) error {
	if v.output == "json" {
		return printJSON(cmd, bench.Scenarios())
	}
	var rows [][]string
	for _, s := range bench.Scenarios() {
		rows = append(rows, []string{s.Name, s.What})
	}
	return table(cmd.OutOrStdout(), "SCENARIO WHAT", rows)
}

func writeReport(path string, report *bench.Report) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return errors.Join(encodeJSON(f, report), f.Close())
}

// scenarioNames completes --run.
func scenarioNames(context.Context, *api, string, []string) ([]cobra.Completion, error) {
	var names []cobra.Completion
	for _, s := range bench.Scenarios() {
		names = append(names, cobra.CompletionWithDesc(s.Name, s.What))
	}
	return names, nil
}

// newBenchFloor is what bench starts for its floors.
func newBenchFloor() *cobra.Command {
	return &cobra.Command{
		Use: "bench-floor KIND", Short: "Serve a floor of muster bench", Hidden: true,
		Example: "  muster bench-floor http", Args: cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions([]string{bench.FloorHTTP, bench.FloorRaft}, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.ServeFloor(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// benchBar shows how far a run has got: a bar on a terminal, a line for each scenario
// elsewhere.
type benchBar struct {
	w     io.Writer
	live  bool // w is a terminal
	lines bool // a line stays for each scenario
	stop  func()
}

func newBenchBar(w io.Writer, lines bool) *benchBar {
	live := isTerminal(w) && os.Getenv("TERM") != "dumb"
	return &benchBar{w: w, live: live, lines: lines || !live, stop: func() {}}
}

// show is bench.Config.Progress.
func (b *benchBar) show(p bench.Progress) {
	b.stop()
	b.stop = func() {}
	if p.Results == nil {
		if b.live {
			b.draw(p)
		}
		return
	}
	if !b.lines {
		return
	}
	for _, r := range p.Results {
		text := "done"
		switch {
		case r.Skipped != "":
			text = "skipped: " + r.Skipped
		case r.Failed != "":
			text = "failed: " + r.Failed
		case r.PerSecond > 0:
			text = fmt.Sprintf("%.0f %s/s, p50 %g ms, p99 %g ms", r.PerSecond, r.Unit, r.P50, r.P99)
		case r.Ops > 0:
			text = fmt.Sprintf("%d %s, p50 %g ms, max %g ms", r.Ops, r.Unit, r.P50, r.Max)
		}
		fmt.Fprintf(b.w, "%d/%d %s: %s\n", p.N, p.Of, r.Scenario, text)
	}
}

// draw moves a bar until it is stopped.
func (b *benchBar) draw(p bench.Progress) {
	done, ended := make(chan struct{}), make(chan struct{})
	b.stop = func() {
		close(done)
		<-ended
		fmt.Fprint(b.w, "\r\x1b[K")
	}
	began := time.Now()
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			fmt.Fprintf(b.w, "\r\x1b[K%s", benchBarText(p, time.Since(began)))
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	}()
}

// benchBarText is one picture of the bar: the whole run in marks, the scenario in time.
func benchBarText(p bench.Progress, elapsed time.Duration) string {
	const width = 30
	part := min(0.95, elapsed.Seconds()/max(p.Expected.Seconds(), 0.1))
	full := int(width * (float64(p.N-1) + part) / float64(p.Of))
	return fmt.Sprintf("[%s%s] %d/%d %s %.0f s", strings.Repeat("#", full), strings.Repeat(".", width-full), p.N, p.Of, p.Scenario, elapsed.Seconds())
}

func (b *benchBar) close() {
	b.stop()
	b.stop = func() {}
}
