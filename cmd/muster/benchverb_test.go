package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster/bench"
)

// TestBench: every scenario runs, in small, against processes that the verb starts;
// each brings what it is for, and of all of it nothing is left behind.
func TestBench(t *testing.T) {
	t.Setenv(actAsMuster, "1") // for what it starts
	t.Setenv("MUSTER_NAME", "not for them")
	t.Setenv("TMPDIR", t.TempDir())
	file := filepath.Join(t.TempDir(), "report.json")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"bench", "--quick", "--json", file}, &out, &errs); code != 0 {
		t.Fatalf("ended with %d:\n%s\n%s", code, tail(errs.String(), 20), out.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report bench.Report
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if report.Schema != bench.Schema || report.Nodes != 3 || report.Target != "started" || !report.Quick || report.Machine.Cores == 0 {
		t.Errorf("the report says %+v", report)
	}
	seen := map[string]bool{}
	for _, r := range report.Results {
		seen[r.Scenario] = true
		checkResult(t, r)
	}
	for _, s := range bench.Scenarios() {
		if !seen[s.Name] && !seen[s.Name+"/beats"] {
			t.Errorf("there is no result of %s", s.Name)
		}
		if !strings.Contains(errs.String(), " "+s.Name) {
			t.Errorf("the progress does not name %s", s.Name)
		}
	}
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 {
			t.Errorf("a line of the table has %d characters: %s", n, line)
		}
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// checkResult looks whether a row tells what it has to.
func checkResult(t *testing.T, r bench.Result) {
	t.Helper()
	if r.Skipped != "" || r.Failed != "" || r.Errors > 0 || r.RSSMiB <= 0 || r.Unit == "" {
		t.Errorf("%s: %+v", r.Scenario, r)
	}
	if r.Scenario == "footprint/empty" {
		return // does nothing
	}
	if r.Ops == 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Max < r.P99 {
		t.Errorf("%s: %+v", r.Scenario, r)
	}
	if r.Scenario != "failover" && r.PerSecond <= 0 {
		t.Errorf("%s: %+v", r.Scenario, r)
	}
	group, _, _ := strings.Cut(r.Scenario, "/")
	hasFloor := slices.Contains([]string{"register", "read", "pick"}, group) || r.Scenario == "heartbeat/single"
	if hasFloor != (r.Floor != nil) || hasFloor && (r.Floor.PerSecond <= 0 || r.Floor.Ratio <= 0) {
		t.Errorf("%s: its floor is %+v", r.Scenario, r.Floor)
	}
	if r.Scenario == "expiry" && r.Extra["earliest_ms"] < 0 {
		t.Errorf("a lease ended %v ms early", -r.Extra["earliest_ms"])
	}
}

// TestBenchRunning: a cluster in use is not killed, is not filled without being asked
// for, and is left as it was.
func TestBenchRunning(t *testing.T) {
	nodes := newCluster(t, 1)
	nodes[0].start()
	nodes[0].waitReady("?require=leader")
	t.Setenv(actAsMuster, "1")
	var out, errs bytes.Buffer
	args := []string{"bench", "--quick", "--addr", nodes[0].url, "--run", "^register,read/10/local/follower,^watch/100$,expiry,^failover", "-o", "json"}
	if code := run(t.Context(), args, &out, &errs); code != 0 {
		t.Fatalf("ended with %d: %s", code, errs.String())
	}
	var report bench.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	if report.Target != "running" || len(report.Results) != 5 || report.Nodes != 1 {
		t.Fatalf("the report is %+v", report)
	}
	for _, r := range report.Results[:4] {
		checkResult(t, r)
	}
	if last := report.Results[4]; last.Scenario != "failover" || !strings.Contains(last.Skipped, "kills") {
		t.Errorf("the failover of a cluster in use: %+v", last)
	}
	if !strings.Contains(errs.String(), "measuring the running cluster at "+nodes[0].url+"\n") {
		t.Errorf("the progress does not say what is measured: %s", errs.String())
	}
	if expired := report.Results[3].Ops; expired != 5 {
		t.Errorf("%d leases ran out in a cluster in use, want 5", expired)
	}
	if got := metric(t, nodes[0], "muster_fsm_services"); got != 0 {
		t.Errorf("%v services are left behind", got)
	}
	testBenchStopped(t, nodes[0])
	testBenchFootprint(t, nodes[0])
}

// testBenchFootprint: what fills a cluster in use is taken out before it runs out.
func testBenchFootprint(t *testing.T, node *process) {
	expired := metric(t, node, "muster_lease_expirations_total")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"bench", "--quick", "--addr", node.url, "--run", "^footprint$"}, &out, &errs); code != 0 {
		t.Fatalf("ended with %d: %s", code, errs.String())
	}
	if got := metric(t, node, "muster_fsm_services"); got != 0 || !strings.Contains(out.String(), "footprint/beats") {
		t.Errorf("%v services are left behind: %s", got, out.String())
	}
	if got := metric(t, node, "muster_lease_expirations_total"); got != expired {
		t.Errorf("%v leases ran out", got-expired)
	}
}

// testBenchStopped: nor does a run leave anything behind that is told to stop while it
// registers.
func testBenchStopped(t *testing.T, node *process) {
	p := &process{t: t, args: []string{"bench", "--addr", node.url, "--run", "^register$", "--duration", "1m"}}
	p.start()
	waitFor(t, "instances of the benchmark", func() bool { return metric(t, node, "muster_fsm_services") > 0 })
	p.signal(os.Interrupt)
	if code := p.wait(); code != 1 || strings.Contains(p.log.String(), "may be left") {
		t.Errorf("ended with %d: %s", code, p.log.String())
	}
	if got := metric(t, node, "muster_fsm_services"); got != 0 {
		t.Errorf("%v services are left behind", got)
	}
}

// TestBenchTarget: an address of the environment or the configuration file is not one
// to load.
func TestBenchTarget(t *testing.T) {
	file := filepath.Join(t.TempDir(), "muster.yaml")
	if err := os.WriteFile(file, []byte("addr: http://127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		env  string
		args []string
		want string
	}{
		{"", nil, "a cluster that is started for it"},
		{"http://127.0.0.1:1", nil, "a cluster that is started for it (an address"},
		{"", []string{"--config", file}, "a cluster that is started for it (an address"},
		{"http://127.0.0.1:1", []string{"--addr", "http://127.0.0.1:2"}, "the running cluster at http://127.0.0.1:2"},
	} {
		t.Setenv("MUSTER_ADDR", c.env)
		ctx, stop := context.WithCancel(t.Context())
		stop() // what it would measure is said all the same
		var out, errs bytes.Buffer
		code := run(ctx, append([]string{"bench", "--quick", "--run", "^pick/10$"}, c.args...), &out, &errs)
		if first, _, _ := strings.Cut(errs.String(), "\n"); code != 1 || !strings.HasPrefix(first, "measuring "+c.want) ||
			strings.Contains(c.want, "(") != strings.Contains(first, "(") {
			t.Errorf("%q %v: ended with %d: %s", c.env, c.args, code, errs.String())
		}
	}
}

// TestBenchSchema: the names in the report are those that programs rely on.
func TestBenchSchema(t *testing.T) {
	report := bench.Report{Results: []bench.Result{{Skipped: "x", Failed: "x", Error: "x", Floor: &bench.Floor{}, Extra: map[string]float64{"x": 1}}}}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, m := range regexp.MustCompile(`"([a-z0-9_]+)":`).FindAllStringSubmatch(string(text), -1) {
		keys = append(keys, m[1])
	}
	const want = "schema started seconds machine os arch kernel cpu cores memory_mb go muster commit target nodes clients duration_ms quick note results " +
		"scenario unit skipped failed ops errors error seconds per_second p50_ms p99_ms max_ms cpu_ms_per_1000 rss_mib " +
		"floor name per_second p50_ms p99_ms cpu_ms_per_1000 ratio cpu_ratio extra x"
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("the keys are\n%s\nwant\n%s\n(a change of them needs another name of the schema)", got, want)
	}
}

func TestBenchBar(t *testing.T) {
	p := bench.Progress{N: 3, Of: 4, Scenario: "register", Expected: 10 * time.Second}
	for elapsed, want := range map[time.Duration]string{
		0:               "[###############...............] 3/4 register 0 s",
		5 * time.Second: "[##################............] 3/4 register 5 s",
		time.Hour:       "[######################........] 3/4 register 3600 s",
	} {
		if got := benchBarText(p, elapsed); got != want {
			t.Errorf("after %s: %q, want %q", elapsed, got, want)
		}
	}
}

// TestBenchInterrupted: a run that is told to stop leaves neither processes nor files,
// and says what it had measured.
func TestBenchInterrupted(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	p := &process{t: t, args: []string{"bench", "--quick", "--run", "read", "--duration", "2s", "-o", "json"}}
	p.start()
	waitFor(t, "the first scenario to end", func() bool { return strings.Contains(p.log.String(), "1/12 read/10/local/leader: ") })
	p.signal(os.Interrupt)
	if code := p.wait(); code != 1 {
		t.Errorf("ended with %d: %s", code, p.log.String())
	}
	if !strings.Contains(p.log.String(), `"scenario": "read/10/local/leader"`) {
		t.Errorf("what was measured is not there: %s", p.log.String())
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
