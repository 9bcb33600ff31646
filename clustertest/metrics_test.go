package clustertest_test

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
)

var updateDocs = flag.Bool("update", false, "write docs/metrics.md instead of comparing it")

const metricsPage = "../docs/metrics.md"

// maxSeries is what the page promises of a node.
const maxSeries = 3000

// metricRooms are the headings of the table, in its order, by the word after muster_.
var metricRooms = []struct{ room, what string }{
	{"node", "The build, the disk, the backups the node writes by itself, the certificate of the API port."},
	{"cluster", "Raft, membership and gossip. A node that leads has an open session: only then does it write, renew and decide."},
	{"logstore", "Raft's log on disk. A write includes its fsync."},
	{"peer", "The peer port: raft and the nodes' own calls."},
	{"fsm", "The replicated state, the same on all nodes that have applied the same. The counters count what this process has applied, the replay of its log at the start included."},
	{"lease", "Heartbeats, expiry and the governor. What is said of decisions and lateness is said by the leader only."},
	{"health", "Probes and what was decided from them."},
	{"watch", "Streams of changes."},
	{"balancer", "Picks on this node."},
	{"httpapi", "Requests. Routes are those of the description (openapi.yaml), never what a client sent."},
}

// metricRow is one row of the table.
type metricRow struct {
	name, help, kind string
	labels           []string
}

var descText = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: ("(?:[^"\\]|\\.)*"), .*variableLabels: \{([^}]*)\}\}$`)

// TestMetricsTable holds docs/metrics.md against what the nodes of a cluster show
// that has been made to use all of them, both ways; -update writes it.
func TestMetricsTable(t *testing.T) {
	c := clustertest.Start(t, 3)
	exercise(t, c)
	rows := map[string]*metricRow{}
	for _, m := range c.Members {
		describe(t, m, rows)
	}
	c.Wait("every metric to be shown by some node", func() bool {
		for _, m := range c.Members {
			gather(t, m, rows)
		}
		for _, r := range rows {
			if r.kind == "" {
				return false
			}
		}
		return true
	})
	for _, r := range rows {
		checkName(t, r)
	}
	for name, want := range map[string]func(v float64) bool{
		"muster_node_build_info":              func(v float64) bool { return v == 1 },
		"muster_node_disk_free_bytes":         func(v float64) bool { return v > 0 },
		"muster_node_disk_size_bytes":         func(v float64) bool { return v > metric(t, c.Members[0], "muster_node_disk_free_bytes")/2 },
		"muster_cluster_voters_alive":         func(v float64) bool { return v == 3 },
		"muster_cluster_gossip_packets_total": func(v float64) bool { return v > 0 },
	} {
		if v := metric(t, c.Members[0], name); !want(v) {
			t.Errorf("%s is %v", name, v)
		}
	}
	series := strings.Count(c.Members[0].MustDo("GET", "/metrics", "", 200), "\nmuster_")
	t.Logf("a node shows %d series", series)
	if series > maxSeries {
		t.Errorf("a node shows %d series, the page says at most %d", series, maxSeries)
	}
	want := table(t, rows)
	if *updateDocs {
		if err := os.WriteFile(metricsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the code says; write it anew with\n  go test ./clustertest -run TestMetricsTable -update\nwant:\n%s", metricsPage, want)
	}
}

// stranger is part of every name that exercise invents, and so must be part of no
// label.
const stranger = "zq9stranger"

// exercise makes c do one of everything that a metric tells apart.
func exercise(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	leader := c.Leader()
	follower := c.Followers(leader)[0]
	s := newTarget(t)
	service := "/v1/services/" + stranger
	// A check that passes, then fails; a lease that is renewed and runs out; a pick.
	follower.MustDo("PUT", service+"/instances/"+stranger+"-1?namespace="+stranger, s.checked(`"tags":["`+stranger+`"],`), 201)
	waitStatus(t, c, service+"/instances/"+stranger+"-1?namespace="+stranger, muster.StatusUp)
	follower.MustDo("PUT", service+"/instances/"+stranger+"-2", `{"address":"10.0.0.5","port":80,"ttl":"2s"}`, 201)
	leader.MustDo("PUT", service+"/instances/"+stranger+"-2/heartbeat", "", 200)
	for _, m := range c.Members {
		m.MustDo("GET", service+"/pick?namespace="+stranger+"&strategy=rendezvous&key="+stranger, "", 200)
		m.MustDo("GET", "/v1/"+stranger, "", 404)
		_, _, _ = m.Do(strings.ToUpper(stranger), service, "") // no method of HTTP
	}
	c.Wait("the lease to run out", func() bool {
		for _, m := range c.Members {
			if metric(t, m, "muster_lease_lateness_seconds_count") > 0 {
				return true
			}
		}
		return false
	})
	// Whoever speaks no word of the peer port is refused.
	conn, err := net.Dial("tcp", leader.Node().Cluster().PeerAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\n\r\n", stranger, stranger)
	_, _ = io.Copy(io.Discard, conn)
}

// describe adds the rows of all metrics of m, also of those that show no series yet.
func describe(t *testing.T, m *clustertest.Member, rows map[string]*metricRow) {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		m.Node().Metrics().Describe(descs)
	}()
	for d := range descs {
		parts := descText.FindStringSubmatch(d.String())
		if parts == nil {
			t.Fatalf("cannot read %s", d)
		}
		if !strings.HasPrefix(parts[1], "muster_") {
			continue
		}
		help, err := strconv.Unquote(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		row := &metricRow{name: parts[1], help: help}
		if parts[3] != "" {
			row.labels = strings.Split(parts[3], ",")
		}
		if other := rows[row.name]; other == nil {
			rows[row.name] = row
		} else if other.help != help || !slices.Equal(other.labels, row.labels) {
			t.Errorf("%s is not the same on all nodes", row.name)
		}
	}
}

// gather fills in the types, and looks at the labels' values.
func gather(t *testing.T, m *clustertest.Member, rows map[string]*metricRow) {
	t.Helper()
	families, err := m.Node().Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if row := rows[f.GetName()]; row != nil {
			row.kind = strings.ToLower(f.GetType().String())
		} else if !strings.HasPrefix(f.GetName(), "go_") && !strings.HasPrefix(f.GetName(), "process_") {
			t.Errorf("%s is shown and not described", f.GetName())
		}
		for _, series := range f.GetMetric() {
			for _, l := range series.GetLabel() {
				if strings.Contains(strings.ToLower(l.GetValue()), stranger) {
					t.Fatalf("%s: the label %s grows with what clients send: %q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
}

var metricName = regexp.MustCompile(`^muster_([a-z]+)(_[a-z0-9]+)+$`)

// checkName holds a metric against the house's convention.
func checkName(t *testing.T, r *metricRow) {
	t.Helper()
	parts := metricName.FindStringSubmatch(r.name)
	if parts == nil || !slices.ContainsFunc(metricRooms, func(m struct{ room, what string }) bool { return m.room == parts[1] }) {
		t.Errorf("%s is not muster_<room>_<thing>_<unit>", r.name)
	}
	if (r.kind == "counter") != strings.HasSuffix(r.name, "_total") {
		t.Errorf("%s is a %s: counters, and they alone, end in _total", r.name, r.kind)
	}
	if !strings.HasSuffix(r.help, ".") {
		t.Errorf("%s: the help is no sentence: %q", r.name, r.help)
	}
}

// table renders docs/metrics.md.
func table(t *testing.T, rows map[string]*metricRow) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# Metrics

<!-- Written from the code: go test ./clustertest -run TestMetricsTable -update -->

Every node shows these at ` + "`GET /metrics`" + `, in Prometheus' text format, beside ` + "`go_*`" + ` (the Go
runtime) and ` + "`process_*`" + ` (memory, CPU, open files). Names are ` + "`muster_<room>_<thing>_<unit>`" + `,
after the part of the program that counts. No label grows with instances, services,
clients or paths: a node has fewer than 3,000 series whatever it holds. A metric with
labels appears once there is something to count.

[deploy/prometheus/rules.yaml](../deploy/prometheus/rules.yaml) has alerts,
[deploy/grafana/muster.json](../deploy/grafana/muster.json) a dashboard.
`)
	for _, room := range metricRooms {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| metric | type | labels | what |\n|---|---|---|---|\n", room.room, room.what)
		var of []*metricRow
		for _, r := range rows {
			if strings.HasPrefix(r.name, "muster_"+room.room+"_") {
				of = append(of, r)
			}
		}
		slices.SortFunc(of, func(a, b *metricRow) int { return strings.Compare(a.name, b.name) })
		for _, r := range of {
			labels := ""
			if len(r.labels) > 0 {
				labels = "`" + strings.Join(r.labels, "` `") + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.name, r.kind, labels, strings.ReplaceAll(r.help, "|", `\|`))
		}
		if len(of) == 0 {
			t.Errorf("the room %s shows nothing", room.room)
		}
	}
	return b.String()
}
