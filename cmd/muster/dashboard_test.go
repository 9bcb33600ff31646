package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.yaml.in/yaml/v3"
)

// shownMetric is a metric by its row in docs/metrics.md, which another test holds
// against what nodes show.
type shownMetric struct {
	kind   string
	labels []string
}

// shownMetrics are all metrics of a node, by name.
func shownMetrics(t *testing.T) map[string]shownMetric {
	t.Helper()
	all := map[string]shownMetric{}
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| ([^|]*) \\|")
	for _, m := range row.FindAllStringSubmatch(readDeploy(t, "../docs/metrics.md"), -1) {
		all[m[1]] = shownMetric{m[2], strings.Fields(strings.ReplaceAll(m[3], "`", ""))}
	}
	if len(all) < 50 {
		t.Fatalf("docs/metrics.md has only %d metrics", len(all))
	}
	runtime := prometheus.NewRegistry()
	runtime.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := runtime.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		all[f.GetName()] = shownMetric{kind: strings.ToLower(f.GetType().String())}
	}
	all["up"] = shownMetric{kind: "gauge"}
	return all
}

func readDeploy(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	exprName   = regexp.MustCompile(`\b(?:muster|go|process)_[a-z0-9_]+|\bup\b`)
	exprBy     = regexp.MustCompile(`\bby \(([^)]*)\)`)
	exprSelect = regexp.MustCompile(`[{,]\s*([a-z_]+)\s*(?:=~|!=|!~|=)`)
)

// checkExpr holds the names and labels of an expression against the metrics.
func checkExpr(t *testing.T, where, expr string, all map[string]shownMetric) {
	t.Helper()
	labels := []string{"job", "instance", "le"} // Prometheus' own
	for _, name := range exprName.FindAllString(expr, -1) {
		m, ok := all[name]
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if base, cut := strings.CutSuffix(name, part); cut && !ok {
				m, ok = all[base], all[base].kind == "histogram"
			}
		}
		if !ok {
			t.Errorf("%s: no node shows %s", where, name)
		}
		if m.kind == "histogram" && all[name].kind == "histogram" {
			t.Errorf("%s: %s is a histogram, and has no value without _bucket, _sum or _count", where, name)
		}
		if m.kind == "counter" && !strings.Contains(expr, "rate(") && !strings.Contains(expr, "increase(") {
			t.Errorf("%s: %s only ever grows: take its rate or increase", where, name)
		}
		labels = append(labels, m.labels...)
	}
	var used []string
	for _, by := range exprBy.FindAllStringSubmatch(expr, -1) {
		used = append(used, strings.FieldsFunc(by[1], func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	for _, sel := range exprSelect.FindAllStringSubmatch(expr, -1) {
		used = append(used, sel[1])
	}
	for _, l := range used {
		if !slices.Contains(labels, l) {
			t.Errorf("%s: the metrics have no label %q: %s", where, l, expr)
		}
	}
}

type alertRule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// TestAlerts holds the rules against the metrics, and sees that each has a test in
// which it fires; scripts/rules.sh runs those.
func TestAlerts(t *testing.T) {
	var rules struct {
		Groups []struct{ Rules []alertRule }
	}
	if err := yaml.Unmarshal([]byte(readDeploy(t, "prometheus/rules.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	var tests struct {
		Tests []struct {
			Exprs []struct {
				Expr    string
				Samples []struct{ Labels string } `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(readDeploy(t, "prometheus/rules_test.yaml")), &tests); err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, c := range tests.Tests {
		for _, e := range c.Exprs {
			name := regexp.MustCompile(`alertname="(\w+)"`).FindStringSubmatch(e.Expr)
			if name == nil {
				t.Fatalf("rules_test.yaml tests %q, no alert", e.Expr)
			}
			fires[name[1]] = fires[name[1]] || len(e.Samples) > 0
			quiet[name[1]] = quiet[name[1]] || len(e.Samples) == 0
		}
	}
	metrics, seen := shownMetrics(t), map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			checkExpr(t, r.Alert, r.Expr, metrics)
			if seen[r.Alert] {
				t.Errorf("%s is there twice", r.Alert)
			}
			seen[r.Alert] = true
			if !fires[r.Alert] || !quiet[r.Alert] {
				t.Errorf("%s: rules_test.yaml tests that it fires (%t) and that it does not (%t); both are needed", r.Alert, fires[r.Alert], quiet[r.Alert])
			}
			if s := r.Labels["severity"]; s != "page" && s != "ticket" {
				t.Errorf("%s is of severity %q, neither page nor ticket", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
				t.Errorf("%s does not say what is wrong and what to do", r.Alert)
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("there are only %d alerts", len(seen))
	}
}

type dashboard struct {
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ H, W, X, Y int }
		Targets []struct{ Expr, RefID string }
	}
	Annotations struct{ List []struct{ Name, Expr string } }
	Templating  struct {
		List []struct {
			Name  string
			Query any
		}
	}
}

// TestDashboard holds the dashboard against the metrics.
func TestDashboard(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal([]byte(readDeploy(t, "grafana/muster.json")), &d); err != nil {
		t.Fatal(err)
	}
	metrics := shownMetrics(t)
	var exprs []string
	check := func(where, expr string) {
		checkExpr(t, where, expr, metrics)
		exprs = append(exprs, expr)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: the id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %q or off the grid at %d,%d", p.Title, other, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s asks for nothing", p.Title)
		}
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		check(a.Name, a.Expr)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
		if q, ok := v.Query.(map[string]any); ok {
			checkExpr(t, "variable "+v.Name, fmt.Sprint(q["query"]), metrics)
		}
	}
	for _, expr := range exprs {
		for _, v := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(expr, -1) {
			if v[1] != "__rate_interval" && !slices.Contains(variables, v[1]) {
				t.Errorf("there is no variable %s: %s", v[1], expr)
			}
		}
	}
	t.Run("syntax", func(t *testing.T) { checkSyntax(t, exprs) })
}

// checkSyntax has promtool parse expressions, disguised as rules.
func checkSyntax(t *testing.T, exprs []string) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: the syntax of the dashboard's expressions is not checked")
	}
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for n, e := range exprs {
		e = strings.NewReplacer("$__rate_interval", "5m", "$job", "muster", "$instance", ".*").Replace(e)
		rules = append(rules, rule{fmt.Sprintf("expr:%d", n), e})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []map[string]any{{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", name).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
