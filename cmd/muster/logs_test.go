package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

// logLines are the lines of a JSON log with that message.
func logLines(t *testing.T, log, msg string) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(log) {
		var v map[string]any
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &v) == nil && (msg == "" || v["msg"] == msg) {
			out = append(out, v)
		}
	}
	return out
}

// TestLogs runs three nodes that log all they can, and looks at what they wrote: each
// transition once, keys that are explained, requests with their ids, no secret; and
// sets a level while they run.
func TestLogs(t *testing.T) {
	nodes := newCluster(t, 3)
	_, key, _ := command(t, "keygen")
	keyFile := filepath.Join(t.TempDir(), "cluster.key")
	if err := os.WriteFile(keyFile, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range nodes {
		p.args = append(p.args, "--log-format", "json", "--log-level", "debug", "--cluster-key-file", keyFile)
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	const hidden = "value-nobody-logs"
	register := []string{"register", "web", "--id", "a", "--address", "10.0.0.5", "--port", "80", "--ttl", "1s", "--meta", "secret=" + hidden, "--addr", nodes[0].url}
	if code, _, errs := command(t, register...); code != 0 {
		t.Fatalf("registering: %d %s", code, errs)
	}
	all := func() (text string) {
		for _, p := range nodes {
			text += p.log.String()
		}
		return text
	}
	expired := func() (n int) {
		for _, l := range logLines(t, all(), "transition") {
			if l["cause"] == "lease_expired" && l["instance"] == "default/web/a" && l["level"] == "INFO" {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(patience); expired() == 0; {
		if time.Now().After(end) {
			t.Fatal("the log says nothing of the lease that ran out")
		}
		if code, _, errs := command(t, "members", "--addr", nodes[1].url); code != 0 {
			t.Fatal(errs)
		}
	}

	// A hand-over is caused by a request: the line of the cluster names it too.
	leader := leaderOf(t, nodes)
	if code, _, errs := command(t, "leader", "transfer", "--addr", leader.url); code != 0 {
		t.Fatalf("handing over: %s", errs)
	}
	lines := logLines(t, leader.log.String(), "handing leadership over")
	if len(lines) == 0 || lines[0]["request_id"] == nil {
		t.Errorf("the line of the hand-over names no request: %v", lines)
	}

	setLevels(t, nodes)

	for _, p := range nodes {
		p.signal(syscall.SIGTERM)
		p.wait()
	}
	if n := expired(); n != 1 {
		t.Errorf("the expiry has %d lines in all three logs, want one", n)
	}
	checkLines(t, all(), strings.TrimSpace(key), hidden)
}

// setLevels sets the level of one node, and of all.
func setLevels(t *testing.T, nodes []*process) {
	t.Helper()
	var levels []muster.LogLevel
	show := func(args ...string) map[string]int {
		t.Helper()
		code, out, errs := command(t, append(args, "-o", "json", "--addr", nodes[0].url)...)
		if levels = nil; code != 0 || json.Unmarshal([]byte(out), &levels) != nil {
			t.Fatalf("%q: %d %s %s", args, code, out, errs)
		}
		count := map[string]int{}
		for _, l := range levels {
			count[l.Level]++
		}
		return count
	}
	if got := show("log-level", "warn", "--node", "n2", "--for", "1h"); got["warn"] != 1 || levels[0].Until.IsZero() || levels[0].Configured != "debug" {
		t.Errorf("setting the level of n2: got %+v", levels)
	}
	if got := show("log-level", "--node", "all"); got["warn"] != 1 || got["debug"] != 2 {
		t.Errorf("got %+v, want n2 alone at warn", levels)
	}
	show("log-level", "error", "--node", "all", "--for", "1s")
	for end := time.Now().Add(patience); show("log-level", "--node", "all")["debug"] != 3; {
		if time.Now().After(end) {
			t.Fatalf("the levels do not go back: %+v", levels)
		}
	}
	if code, _, errs := command(t, "log-level", "debug", "--node", "n9", "--addr", nodes[0].url); code != 1 || !strings.Contains(errs, "there are n1, n2, n3") {
		t.Errorf("an unknown node: %d %s", code, errs)
	}
}

// checkLines holds what was really written against docs/logs.md.
func checkLines(t *testing.T, log string, secrets ...string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "## The keys")
	known := map[string]bool{"time": true, "level": true, "msg": true}
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(table, -1) {
		known[m[1]] = true
	}
	lines := logLines(t, log, "")
	if len(lines) < 50 {
		t.Errorf("found only %d lines", len(lines))
	}
	for _, l := range lines {
		for key := range l {
			if l["msg"] != "raft says" && !known[key] {
				t.Errorf("docs/logs.md does not explain %s of %v", key, l)
			}
		}
	}
	for _, secret := range secrets {
		if secret == "" || strings.Contains(log, secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
	if len(logLines(t, log, "request")) == 0 {
		t.Error("level debug shows no request")
	}
}
