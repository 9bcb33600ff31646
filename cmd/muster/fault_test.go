package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"
)

// dataDir is the --data-dir of the process.
func (p *process) dataDir() string { return p.args[slices.Index(p.args, "--data-dir")+1] }

// TestFlippedByteStopsTheNode: a node whose log was damaged says which entry and
// stops with 65; repaired by wiping, it comes back as a new member.
func TestFlippedByteStopsTheNode(t *testing.T) {
	nodes := newCluster(t, 3)
	for _, p := range nodes {
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	client := &http.Client{Timeout: 10 * time.Second}
	put := func(p *process, id string) {
		t.Helper()
		status, body, err := request(t.Context(), client, "PUT", p.url+"/v1/services/web/instances/"+id, `{"address":"10.0.0.1","port":80,"ttl":"none"}`)
		if err != nil || status != 201 {
			t.Fatalf("%d %s %v", status, body, err)
		}
	}
	put(nodes[0], "marker-instance")
	victim := nodes[0]
	if victim == leaderOf(t, nodes) {
		victim = nodes[1]
	}
	victim.signal(syscall.SIGTERM)
	if code := victim.wait(); code != 0 {
		t.Errorf("a node told to stop ended with %d\n%s", code, victim.log)
	}

	path := filepath.Join(victim.dataDir(), "raft.db")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(file, []byte("marker-instance")) {
		t.Fatal("the log does not hold the entry in the clear: the test damages nothing")
	}
	file = bytes.ReplaceAll(file, []byte("marker-instance"), []byte("marker-instancf"))
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	victim.log = nil
	victim.start()
	if code := victim.wait(); code != 65 {
		t.Errorf("a damaged node ended with %d, want 65\n%s", code, victim.log)
	}
	if !regexp.MustCompile(`muster: .*(index|entry) \d+`).MatchString(victim.log.String()) {
		t.Errorf("the message does not name the damaged entry:\n%s", victim.log)
	}

	put(nodes[2], "after") // the others go on
	if err := os.RemoveAll(victim.dataDir()); err != nil {
		t.Fatal(err)
	}
	victim.start()
	victim.waitReady("?require=leader")
	status, body, err := request(t.Context(), client, "GET", victim.url+"/v1/services/web", "")
	if err != nil || status != 200 || !bytes.Contains([]byte(body), []byte("marker-instance")) {
		t.Errorf("the wiped node answers %d %s %v", status, body, err)
	}
}

// TestPausedLeader stops the leader's process for longer than an election and
// lets it go on: meanwhile the others write, and afterwards it must not give an
// answer from before to a linearizable read.
func TestPausedLeader(t *testing.T) {
	nodes := newCluster(t, 3)
	for _, p := range nodes {
		p.start()
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	client := &http.Client{Timeout: 10 * time.Second}
	for round := range 3 {
		paused := leaderOf(t, nodes)
		rest := slices.DeleteFunc(slices.Clone(nodes), func(p *process) bool { return p == paused })
		paused.signal(syscall.SIGSTOP)
		id := fmt.Sprintf("round-%d", round)
		waitFor(t, "a write without the paused leader", func() bool {
			status, _, err := request(t.Context(), client, "PUT", rest[0].url+"/v1/services/web/instances/"+id, `{"address":"10.0.0.1","port":80,"ttl":"none"}`)
			return err == nil && status < 300
		})
		paused.signal(syscall.SIGCONT)
		// At once, as often as it takes until it answers at all.
		waitFor(t, "the resumed node to answer linearizably", func() bool {
			status, body, err := request(t.Context(), client, "GET", paused.url+"/v1/services/web?consistency=linearizable&timeout=2s", "")
			if err != nil || status == 503 {
				return false
			}
			if status != 200 || !bytes.Contains([]byte(body), []byte(id)) {
				t.Fatalf("the resumed leader answered %d %s: older than what was acknowledged", status, body)
			}
			return true
		})
	}
}
