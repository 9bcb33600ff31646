package bench

import (
	"strings"
	"testing"
	"time"
)

func exampleReport() *Report {
	sample := Sample{Ops: 200_000, Elapsed: 2 * time.Second, Errors: 1, Took: []time.Duration{time.Millisecond, 12345 * time.Microsecond}}
	sample.First = errString("connection refused")
	r := resultOf(sample, Usage{CPU: 1, Resident: 64 << 20})
	r.Scenario = "read/1000/linearizable/follower"
	r.Floor = floorOf("net/http", r, Sample{Ops: 400_000, Elapsed: 2 * time.Second}, Usage{CPU: 0.5})
	return &Report{
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Muster: "v1", Go: "go1.26", Commit: "abc", Target: "started", Nodes: 3, Clients: 64,
		DurationMS: 2000, Seconds: 100, Note: sharedNote, Machine: Machine{OS: "linux", Arch: "amd64", CPU: "Abacus", Cores: 2, MemoryMB: 1, Kernel: "6"},
		Results: []Result{
			r,
			{Scenario: "failover", Skipped: "it kills processes"},
			{Scenario: "expiry", Failed: "a node has ended"},
			{Scenario: "watch/100", PerSecond: 1234567, P50: 0.01234, Extra: map[string]float64{"kib_per_watcher": 10}},
		},
	}
}

type errString string

func (e errString) Error() string { return string(e) }

func TestWriteText(t *testing.T) {
	var out strings.Builder
	if err := exampleReport().WriteText(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2 cores (Abacus)", "of commit abc", "share the cores",
		"read/1000/linearizable/follower      100,000    1.00    12.3    12.3      5.00   64.0    0.50   0.25\n",
		"failover                             skipped\n",
		"failover: skipped: it kills processes\n",
		"expiry                                failed\n",
		"expiry: failed: a node has ended\n",
		"errors, the first: connection refused\n",
		"watch/100                          1,234,567   0.012",
		"watch/100: kib per watcher 10.0\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(line)) - 1; n > tableWidth {
			t.Errorf("%d characters: %s", n, line)
		}
	}
}

func TestWriteMarkdown(t *testing.T) {
	var out strings.Builder
	if err := exampleReport().WriteMarkdown(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| scenario | per second |", "\n|---|---:|",
		"\n| `read/1000/linearizable/follower` | 100,000 | 1.00 | 12.3 | 12.3 | 5.00 | 64.0 | 0.50 | 0.25 |\n",
		"\n- `failover`: skipped: it kills processes\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, out.String())
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "", 0.01234: "0.012", 0.5: "0.50", 9.999: "10.00", 12.34: "12.3", 123.4: "123", 1234: "1,234", 1234567.8: "1,234,568", -1500: "-1,500"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]float64{0: 0, 123456: 123500, 0.00123456: 0.001235, -98.7654: -98.77} {
		if got := round(v); got != want {
			t.Errorf("round(%v) = %v, want %v", v, got, want)
		}
	}
}

func TestMetric(t *testing.T) {
	const text = "# HELP a b\nprocess_cpu_seconds_total_x 9\nprocess_cpu_seconds_total 1.5e+01\n"
	if v, err := metric(text, "process_cpu_seconds_total"); v != 15 || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
	if _, err := metric(text, "process_cpu_seconds"); err == nil {
		t.Error("found half a name")
	}
}
