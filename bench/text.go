package bench

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// head are the columns of a table.
var head = []string{"SCENARIO", "PER SECOND", "P50 MS", "P99 MS", "MAX MS", "CPU/1K MS", "MIB", "×FLOOR", "×CPU"}

// Lines are what a reader has to know of the figures: where, when, how, of what.
func (r *Report) Lines() []string {
	m := r.Machine
	lines := []string{
		fmt.Sprintf("%s on %s/%s: %d cores (%s), %d MB, kernel %s", r.Started.Format("2006-01-02 15:04 MST"), m.OS, m.Arch, m.Cores, m.CPU, m.MemoryMB, m.Kernel),
		fmt.Sprintf("muster %s%s, %s; nodes: %d (%s), %d clients, %s ms a scenario, %s s in all",
			r.Muster, ofCommit(r.Commit), r.Go, r.Nodes, r.Target, r.Clients, strconv.FormatInt(r.DurationMS, 10), number(r.Seconds)),
		r.Note + ": latencies and throughput are of both",
	}
	if r.Quick {
		lines = append(lines, "QUICK: in small and for moments; the figures mean nothing")
	}
	return lines
}

// legend says what the columns are.
const legend = "PER SECOND: operations of the scenario (muster bench --list). P50, P99, MAX: of one request. " +
	"CPU/1K: processor time of all nodes for 1,000 operations. MIB: resident memory of the largest node. " +
	"×FLOOR: throughput by the floor's, 1 is as much. ×CPU: the floor's processor time by the nodes', 1 is as little."

func ofCommit(commit string) string {
	if commit == "" {
		return "" // make has it in the version
	}
	return " of commit " + commit
}

// tableWidth is what a text keeps to.
const tableWidth = 100

// WriteText writes the report for people, in at most 100 columns.
func (r *Report) WriteText(w io.Writer) error {
	out := bufio.NewWriter(w)
	for _, line := range r.Lines() {
		fmt.Fprintln(out, wrapped(line, tableWidth))
	}
	const form = "%-33s %10s %7s %7s %7s %9s %6s %7s %6s"
	row := func(texts []string) { fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf(form, cells(texts)...), " ")) }
	fmt.Fprintln(out)
	row(head)
	for n := range r.Results {
		row(r.Results[n].cells())
	}
	fmt.Fprintln(out)
	for n := range r.Results {
		if note := r.Results[n].note(); note != "" {
			fmt.Fprintln(out, wrapped(r.Results[n].Scenario+": "+note, tableWidth))
		}
	}
	fmt.Fprintln(out)
	fmt.Fprintln(out, wrapped(legend, tableWidth))
	return out.Flush()
}

// WriteMarkdown writes it for a document.
func (r *Report) WriteMarkdown(w io.Writer) error {
	out := bufio.NewWriter(w)
	for _, line := range r.Lines() {
		fmt.Fprintln(out, line+".  ")
	}
	fmt.Fprintf(out, "\n| %s |\n|---|%s\n", strings.ToLower(strings.Join(head, " | ")), strings.Repeat("---:|", len(head)-1))
	for n := range r.Results {
		c := r.Results[n].cells()
		fmt.Fprintf(out, "| `%s` | %s |\n", c[0], strings.Join(c[1:], " | "))
	}
	fmt.Fprintln(out)
	for n := range r.Results {
		if note := r.Results[n].note(); note != "" {
			fmt.Fprintf(out, "- `%s`: %s\n", r.Results[n].Scenario, note)
		}
	}
	return out.Flush()
}

func cells(texts []string) []any {
	all := make([]any, len(texts))
	for n, t := range texts {
		all[n] = t
	}
	return all
}

// cells are the row of a table.
func (r *Result) cells() []string {
	for word, why := range map[string]string{"skipped": r.Skipped, "failed": r.Failed} {
		if why != "" {
			return append([]string{r.Scenario, word}, slices.Repeat([]string{""}, len(head)-2)...)
		}
	}
	c := []string{r.Scenario, number(r.PerSecond), number(r.P50), number(r.P99), number(r.Max), number(r.CPUPer1000), number(r.RSSMiB), "", ""}
	if r.Floor != nil {
		c[7], c[8] = number(r.Floor.Ratio), number(r.Floor.CPURatio)
	}
	return c
}

// note is what has no column.
func (r *Result) note() string {
	if r.Skipped != "" {
		return "skipped: " + r.Skipped
	}
	if r.Failed != "" {
		return "failed: " + r.Failed
	}
	var parts []string
	if f := r.Floor; f != nil {
		parts = append(parts, fmt.Sprintf("floor %s %s/s, p50 %s ms, p99 %s ms, CPU %s ms for 1,000", f.Name, figure(f.PerSecond), figure(f.P50), figure(f.P99), figure(f.CPUPer1000)))
	}
	for _, key := range sorted(r.Extra) {
		parts = append(parts, fmt.Sprintf("%s %s", strings.ReplaceAll(key, "_", " "), figure(r.Extra[key])))
	}
	if r.Errors > 0 {
		text := fmt.Sprintf("%d errors", r.Errors)
		if r.Error != "" {
			text += ", the first: " + r.Error
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func sorted(m map[string]float64) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// figure is number where nothing is something.
func figure(v float64) string {
	if v == 0 {
		return "0"
	}
	return number(v)
}

// number writes a figure as short as it may be: three digits that count, thousands
// apart, nothing for what means nothing.
func number(v float64) string {
	switch {
	case v == 0:
		return ""
	case v < 0:
		return "-" + number(-v)
	case v >= 1000:
		s := strconv.FormatFloat(v, 'f', 0, 64)
		for n := len(s) - 3; n > 0; n -= 3 {
			s = s[:n] + "," + s[n:]
		}
		return s
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// wrapped breaks a text into lines of width characters at most, the later ones
// indented.
func wrapped(text string, width int) string {
	var out strings.Builder
	length := 0
	for n, word := range strings.Fields(text) {
		if n > 0 && length+1+len([]rune(word)) > width {
			out.WriteString("\n ")
			length = 1
		}
		if n > 0 {
			out.WriteByte(' ')
			length++
		}
		out.WriteString(word)
		length += len([]rune(word))
	}
	return out.String()
}
