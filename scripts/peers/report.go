package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/muster-registry/muster/bench"
)

// row is what one work took one system.
type row struct {
	Work       string  `json:"work"`
	System     string  `json:"system"`
	Skipped    string  `json:"skipped,omitempty"`
	Ops        int     `json:"ops"`
	PerSecond  float64 `json:"per_second"` // 0 where it means nothing
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
	CPUPer1000 float64 `json:"cpu_ms_per_1000"` // of all nodes
	RSSMiB     float64 `json:"rss_mib"`         // of the largest node
	// Ratio is how many times better Muster is: by throughput, or by the median
	// latency where there is none. Below 1 it is worse.
	Ratio float64 `json:"muster_ratio,omitempty"`
	// CPURatio is the same by CPUPer1000.
	CPURatio float64 `json:"muster_cpu_ratio,omitempty"`
}

func rowOf(s bench.Sample, cpu, resident float64) row {
	ms := func(q float64) float64 { return float64(s.Quantile(q)) / 1e6 }
	r := row{Ops: s.Ops, PerSecond: s.PerSecond(), P50: ms(0.5), P99: ms(0.99), Max: ms(1), RSSMiB: resident / (1 << 20)}
	if s.Ops > 0 {
		r.CPUPer1000 = cpu * 1e6 / float64(s.Ops)
	}
	return r
}

// report is all of it.
type report struct {
	Started    time.Time         `json:"started"`
	Machine    bench.Machine     `json:"machine"`
	Go         string            `json:"go"`
	Clients    int               `json:"clients"`
	DurationMS int64             `json:"duration_ms"`
	Kills      int               `json:"kills"`
	Versions   map[string]string `json:"versions"`
	Missing    []string          `json:"missing"`
	Rows       []row             `json:"rows"`
}

func newReport(s settings) *report {
	return &report{
		Started: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), Clients: s.clients,
		DurationMS: s.duration.Milliseconds(), Kills: s.kills, Versions: map[string]string{}, Missing: []string{},
	}
}

// add adds a row, with its ratio to Muster's of the same work, which comes first.
func (r *report) add(n row) {
	for _, m := range r.Rows {
		if m.Work != n.Work || m.System != "Muster" || n.Skipped != "" {
			continue
		}
		if n.PerSecond > 0 {
			n.Ratio = m.PerSecond / n.PerSecond
		} else if m.P50 > 0 {
			n.Ratio = n.P50 / m.P50
		}
		if m.CPUPer1000 > 0 {
			n.CPURatio = n.CPUPer1000 / m.CPUPer1000
		}
	}
	r.Rows = append(r.Rows, n)
}

// notes say what differs, beside the systems. They belong to every print of the table.
func (r *report) notes() []string {
	return []string{
		"All load and all nodes share the cores of one machine; the three clusters are up at the same time, and one at a time is given work. Each was warmed with registrations and reads for as long as a row.",
		"Protocol: Muster HTTP/1.1 and JSON by net/http, a request a connection at a time; etcd gRPC by its own client, many requests on " + strconv.Itoa(connections) + " connections a node; ZooKeeper its own binary protocol by go-zookeeper, likewise. All three fsync before they acknowledge, on the same disk.",
		"register, own lease: etcd needs two requests for it (Grant, Put). register, shared lease: ZooKeeper's ephemeral nodes, 3 sessions a node; Muster and etcd a lease for each client.",
		"keep one lease alive: Muster's is noted by a majority before it is answered, etcd's by its leader alone, on a stream that stays open. Batches of Muster (1,000 leases a request) are not in this table.",
		"read 100: Muster and etcd give instances whole; ZooKeeper the names of 100 nodes (getChildren), as it has no request for their data too. local is serializable with etcd. linearizable is sync and then getChildren with ZooKeeper, which is a little less.",
		"propagation: from the start of a write on one follower until a watcher on the other has the new value, a change every " + betweenChanges.String() + " (Muster wakes a stream at most once in 50 ms); ZooKeeper's watcher reads it after the event. failover: kill -9 of the leader to the first acknowledgement of a write sent after it, by clients of the survivors that try again after " + attempt.String() + "; default timeouts of each.",
		"CPU/1k: processor time of all nodes for 1,000 operations, MiB: resident memory of the largest node, both from /proc. Muster ×: how many times better Muster did by throughput, or by median latency in the last two; below 1 it did worse. CPU ×: the same by processor time.",
	}
}

func (r *report) head() []string {
	m := r.Machine
	lines := []string{
		fmt.Sprintf("%s on %s/%s: %d cores (%s), %d MB, kernel %s, load by %s", r.Started.Format("2006-01-02 15:04 MST"), m.OS, m.Arch, m.Cores, m.CPU, m.MemoryMB, m.Kernel, r.Go),
	}
	for _, name := range []string{"Muster", "etcd", "ZooKeeper"} {
		if v := r.Versions[name]; v != "" {
			lines = append(lines, name+" "+v)
		}
	}
	for _, m := range r.Missing {
		lines = append(lines, "left out: "+m)
	}
	return append(lines, fmt.Sprintf("%d clients, %d ms a row, %d kills", r.Clients, r.DurationMS, r.Kills))
}

var columns = []string{"work", "system", "per second", "p50 ms", "p99 ms", "max ms", "CPU/1k ms", "MiB", "Muster ×", "CPU ×"}

func (r *row) cells() []string {
	if r.Skipped != "" {
		return append([]string{r.Work, r.System, "none"}, make([]string, len(columns)-3)...)
	}
	return []string{r.Work, r.System, figure(r.PerSecond), figure(r.P50), figure(r.P99), figure(r.Max), figure(r.CPUPer1000), figure(r.RSSMiB), figure(r.Ratio), figure(r.CPURatio)}
}

// write prints it for people, or for a document.
func (r *report) write(w io.Writer, markdown bool) error {
	out := bufio.NewWriter(w)
	end, form := "\n", "%-22s %-9s %10s %7s %7s %7s %9s %6s %8s %6s\n"
	if markdown {
		end, form = ".  \n", "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n"
	}
	for _, line := range r.head() {
		fmt.Fprint(out, line, end)
	}
	fmt.Fprintln(out)
	print := func(texts []string) {
		args := make([]any, len(texts))
		for n, t := range texts {
			args[n] = t
		}
		fmt.Fprintf(out, form, args...)
	}
	print(columns)
	if markdown {
		fmt.Fprintln(out, "|---|---|"+strings.Repeat("---:|", len(columns)-2))
	}
	for n := range r.Rows {
		print(r.Rows[n].cells())
	}
	fmt.Fprintln(out)
	for _, row := range r.Rows {
		if row.Skipped != "" {
			fmt.Fprintf(out, "- %s, %s: none; %s.\n", row.Work, row.System, row.Skipped)
		}
	}
	for _, note := range r.notes() {
		fmt.Fprintln(out, "- "+note)
	}
	return out.Flush()
}

// figure writes three digits that count; nothing for what means nothing.
func figure(v float64) string {
	if v == 0 || math.IsNaN(v) {
		return ""
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	s := strconv.FormatFloat(v, 'f', min(max(digits, 0), 3), 64)
	if v >= 10_000 {
		s = s[:len(s)-3] + "," + s[len(s)-3:]
	}
	return s
}
