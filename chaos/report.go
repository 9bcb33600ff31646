package chaos

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Report is what a run has found.
type Report struct {
	Seed    uint64
	Elapsed time.Duration
	Spans   []FaultSpan
	// Broken is what the bench itself found, in the order of finding: a node that
	// ended by itself, a cluster that did not become whole, a needless election.
	Broken []string
	// Verdict is what the checkers say of the history; nil if it did not come to it.
	Verdict *Verdict
	// Dir holds history and logs, and is gone unless Kept.
	Dir  string
	Kept bool
}

// OK reports whether the run came to its end and nothing is broken.
func (r *Report) OK() bool { return len(r.Broken) == 0 && r.Verdict != nil && r.Verdict.OK() }

// Write says what a run has found.
func (r *Report) Write(w io.Writer) {
	fmt.Fprintln(w)
	r.writeFaults(w)
	fmt.Fprintf(w, "seed %d, %.0f s, %d faults\n", r.Seed, r.Elapsed.Seconds(), len(r.Spans))
	if r.Verdict != nil {
		fmt.Fprintln(w, r.Verdict)
	}
	for _, b := range r.Broken {
		fmt.Fprintf(w, "BROKEN %s\n", b)
	}
	if r.Kept {
		fmt.Fprintf(w, "history and logs are in %s\n", r.Dir)
	}
	verdict := "PASS: nothing is broken"
	if !r.OK() {
		verdict = "FAIL"
	}
	fmt.Fprintf(w, "%s (seed %d)\n", verdict, r.Seed)
}

// writeFaults is a table of the faults: how often each was, how many terms they cost,
// how many elections were begun because a leader's process was gone, and how long it
// took at most until the cluster was whole again.
func (r *Report) writeFaults(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "fault\ttimes\tterms\tfast elections\twhole after\t")
	for _, f := range faults {
		var times, terms, fast uint64
		var whole time.Duration
		for _, s := range r.Spans {
			if s.Fault == f.name {
				times++
				terms, fast = terms+s.Elections, fast+s.FastElections
				whole = max(whole, s.Healed.Sub(s.Heal))
			}
		}
		if times > 0 {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.1fs\t\n", f.name, times, terms, fast, whole.Seconds())
		}
	}
	_ = t.Flush()
}
