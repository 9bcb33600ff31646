package bench

import (
	"math"
	"time"
)

// Schema names the form of a Report in JSON. Fields may be added to it; none changes
// its meaning or goes away without another name here.
const Schema = "muster-bench/1"

// sharedNote is what a reader must know before he compares, remoteNote the same where
// the nodes were there before.
const (
	sharedNote = "load generators and servers share the cores of one machine"
	remoteNote = "load generators run on this machine, and share its cores with those nodes that do too"
)

// Report is what a run has measured.
type Report struct {
	Schema  string    `json:"schema"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // the whole run took
	Machine Machine   `json:"machine"`
	Go      string    `json:"go"`
	Muster  string    `json:"muster"`
	// Commit is that of the sources, "+dirty" where they were changed; "" if unknown.
	Commit string `json:"commit"`
	// Target is "started" where the run started the nodes, or "running".
	Target     string `json:"target"`
	Nodes      int    `json:"nodes"`
	Clients    int    `json:"clients"`
	DurationMS int64  `json:"duration_ms"` // of a scenario
	// Quick says that sizes were small, and that the figures mean nothing.
	Quick   bool     `json:"quick"`
	Note    string   `json:"note"`
	Results []Result `json:"results"`
}

// Result is one row. Times are milliseconds, and of one call where an operation is
// not a call of its own.
type Result struct {
	Scenario string `json:"scenario"`
	Unit     string `json:"unit"` // what an operation is
	// Skipped says why there is nothing else.
	Skipped string `json:"skipped,omitempty"`
	// Failed says why it has come to nothing.
	Failed    string  `json:"failed,omitempty"`
	Ops       int     `json:"ops"`
	Errors    int     `json:"errors"`
	Error     string  `json:"error,omitempty"` // the first
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"` // 0 where it means nothing
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	// CPUPer1000 is milliseconds of processor time, of all nodes, for a thousand
	// operations, with what they do at rest; 0 where it means nothing.
	CPUPer1000 float64 `json:"cpu_ms_per_1000"`
	// RSSMiB is the resident memory of the largest node, after it.
	RSSMiB float64            `json:"rss_mib"`
	Floor  *Floor             `json:"floor,omitempty"`
	Extra  map[string]float64 `json:"extra,omitempty"`
}

// Floor is what was measured beside a Result.
type Floor struct {
	Name       string  `json:"name"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	CPUPer1000 float64 `json:"cpu_ms_per_1000"`
	// Ratio is the Result's throughput by the floor's: 1 is as much. CPURatio is
	// the floor's processor time by the Result's: 1 is as little.
	Ratio    float64 `json:"ratio"`
	CPURatio float64 `json:"cpu_ratio"`
}

func resultOf(s Sample, u Usage) Result {
	r := Result{
		Ops: s.Ops, Errors: s.Errors, Seconds: round(s.Elapsed.Seconds()), PerSecond: round(s.PerSecond()),
		P50: millis(s.Quantile(0.5)), P99: millis(s.Quantile(0.99)), Max: millis(s.Quantile(1)),
		RSSMiB: round(u.Resident / (1 << 20)),
	}
	if s.Ops > 0 {
		r.CPUPer1000 = round(u.CPU * 1e6 / float64(s.Ops))
	}
	if s.First != nil {
		r.Error = s.First.Error()
	}
	return r
}

func floorOf(name string, r Result, s Sample, u Usage) *Floor {
	o := resultOf(s, u)
	f := &Floor{Name: name, PerSecond: o.PerSecond, P50: o.P50, P99: o.P99, CPUPer1000: o.CPUPer1000}
	if o.PerSecond > 0 {
		f.Ratio = round(r.PerSecond / o.PerSecond)
	}
	if r.CPUPer1000 > 0 {
		f.CPURatio = round(o.CPUPer1000 / r.CPUPer1000)
	}
	return f
}

func millis(d time.Duration) float64 { return round(float64(d) / 1e6) }

// round keeps four digits that count: more would promise too much.
func round(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}
