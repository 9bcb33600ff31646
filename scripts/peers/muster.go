package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/muster-registry/muster/bench"
)

// musterSystem is Muster by its HTTP API: an instance is an instance, a lease its own
// or a shared one.
type musterSystem struct {
	binary  string
	cluster *bench.Cluster
	client  *http.Client

	mu     sync.Mutex
	shared map[int]string // by client; guarded by mu
}

func (m *musterSystem) name() string { return "Muster" }

func (m *musterSystem) version() string {
	out, err := exec.Command(m.binary, "version").Output()
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(strings.TrimPrefix(string(out), "muster "))
}

func (m *musterSystem) missing() string {
	if _, err := os.Stat(m.binary); err != nil {
		return fmt.Sprintf("there is no %s: run make", m.binary)
	}
	return ""
}

func (m *musterSystem) start(ctx context.Context, _ string) error {
	binary, err := filepath.Abs(m.binary)
	if err != nil {
		return err
	}
	m.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	m.shared = map[int]string{}
	m.cluster, err = bench.Start(ctx, func(args ...string) *exec.Cmd { return exec.Command(binary, args...) })
	return err
}

func (m *musterSystem) stop() {
	if m.cluster != nil {
		if err := m.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping Muster:", err)
		}
	}
}

// ask sends a request to a node.
func (m *musterSystem) ask(ctx context.Context, node int, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.cluster.Nodes[node%3].URL+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s answered %d: %.200s", method, path, resp.StatusCode, text)
	}
	return string(text), err
}

func instance(more string) string { return payload[:len(payload)-1] + "," + more + "}" }

func (m *musterSystem) put(ctx context.Context, node int, service string, n int, more string) error {
	_, err := m.ask(ctx, node, "PUT", fmt.Sprintf("/v1/services/%s/instances/i-%d", service, n), instance(more))
	return err
}

func (m *musterSystem) register(ctx context.Context, client, n int) error {
	return m.put(ctx, client, fmt.Sprintf("own-%d", n/100), n, `"ttl":"1h"`)
}

func (m *musterSystem) registerShared(ctx context.Context, client, n int) error {
	lease, err := m.lease(ctx, client)
	if err != nil {
		return err
	}
	return m.put(ctx, client, fmt.Sprintf("shared-%d", n/100), n, fmt.Sprintf(`"lease_id":%q`, lease))
}

// lease is the shared lease of a client.
func (m *musterSystem) lease(ctx context.Context, client int) (string, error) {
	m.mu.Lock()
	id := m.shared[client]
	m.mu.Unlock()
	if id != "" {
		return id, nil
	}
	text, err := m.ask(ctx, client, "POST", "/v1/leases", `{"ttl":"1h"}`)
	if err != nil {
		return "", err
	}
	var lease struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(text), &lease); err != nil {
		return "", err
	}
	m.mu.Lock()
	m.shared[client] = lease.ID
	m.mu.Unlock()
	return lease.ID, nil
}

func (m *musterSystem) keepalive(ctx context.Context, client, n int) error {
	_, err := m.ask(ctx, client, "PUT", fmt.Sprintf("/v1/services/own-%d/instances/i-%d/heartbeat", n/100, n), "")
	return err
}

func (m *musterSystem) fill(ctx context.Context) error {
	for n := range 100 {
		if err := m.put(ctx, 0, "filled", n, `"ttl":"1h"`); err != nil {
			return err
		}
	}
	return nil
}

func (m *musterSystem) read(ctx context.Context, client int, linearizable bool) error {
	path := "/v1/services/filled"
	if linearizable {
		path += "?consistency=linearizable"
	}
	_, err := m.ask(ctx, client, "GET", path, "")
	return err
}

func (m *musterSystem) watch(ctx context.Context, node int, told func()) (func(), error) {
	if err := m.change(ctx, 0, 0); err != nil {
		return nil, err
	}
	// The node has applied it then, and tells it as no change.
	if _, err := m.ask(ctx, node, "GET", "/v1/services/watched?consistency=linearizable", ""); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, "GET", m.cluster.Nodes[node].URL+"/v1/watch?service=watched", nil)
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := m.client.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	synced, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer resp.Body.Close()
		change := false
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			switch line := lines.Text(); {
			case line == "event: synced":
				close(synced)
			case line == "event: change":
				change = true
			case change && strings.HasPrefix(line, "data:"):
				change = false
				told()
			}
		}
	}()
	stop := func() { cancel(); <-ended }
	select {
	case <-synced:
		return stop, nil
	case <-time.After(patience):
		stop()
		return nil, fmt.Errorf("the stream was not synced in %s", patience)
	}
}

func (m *musterSystem) change(ctx context.Context, node, n int) error {
	_, err := m.ask(ctx, node, "PUT", "/v1/services/watched/instances/i", fmt.Sprintf(`{"address":"10.0.0.5","port":8080,"ttl":"1h","meta":{"n":"%d"}}`, n))
	return err
}

func (m *musterSystem) write(ctx context.Context, node, n int) error {
	return m.put(ctx, node, fmt.Sprintf("written-%d", node), n%100, `"ttl":"1h"`)
}

func (m *musterSystem) leader(ctx context.Context) (int, error) {
	leader, err := m.cluster.Leader(ctx, m.client)
	for n, node := range m.cluster.Nodes {
		if node == leader {
			return n, err
		}
	}
	return 0, err
}

func (m *musterSystem) kill(node int) time.Time { return m.cluster.Nodes[node].Kill() }

func (m *musterSystem) restart(ctx context.Context, node int) error {
	return m.cluster.Nodes[node].Restart(ctx, m.client)
}

func (m *musterSystem) pids() []int {
	var pids []int
	for _, n := range m.cluster.Nodes {
		pids = append(pids, n.Pid())
	}
	return pids
}
