package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

// fastElections is the metric of elections begun because a leader's process was gone.
const fastElections = "muster_cluster_fast_elections_total"

// status is what a node says of the cluster; nil if it does not answer.
func (c *Cluster) status(ctx context.Context, n *Node) *muster.Cluster {
	var s muster.Cluster
	if err := c.call(ctx, http.MethodGet, n.URL+"/v1/cluster", "", &s); err != nil {
		return nil
	}
	return &s
}

// statuses asks all nodes that run, at once, since one may be stopped.
func (c *Cluster) statuses(ctx context.Context) map[*Node]*muster.Cluster {
	var mu sync.Mutex
	var wg sync.WaitGroup
	all := map[*Node]*muster.Cluster{}
	for _, n := range c.nodes {
		if !n.Alive() {
			continue
		}
		wg.Go(func() {
			if s := c.status(ctx, n); s != nil {
				mu.Lock()
				defer mu.Unlock()
				all[n] = s
			}
		})
	}
	wg.Wait()
	return all
}

// call sends one request and decodes the answer into out, if that is not nil.
func (c *Cluster) call(ctx context.Context, method, url, body string, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking a node: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("reading an answer: %w", err)
	case resp.StatusCode >= 300:
		return fmt.Errorf("%s %s: %d %s", method, url, resp.StatusCode, b)
	case out != nil:
		if err := json.Unmarshal(b, out); err != nil {
			return fmt.Errorf("%s %s: %w", method, url, err)
		}
	}
	return nil
}

// Leader waits until a node leads by its own word, and returns the one of the highest
// term, or an error when ctx ends.
func (c *Cluster) Leader(ctx context.Context) (leader *Node, err error) {
	err = c.wait(ctx, "a leader", func() error {
		best := uint64(0)
		for n, s := range c.statuses(ctx) {
			for _, m := range s.Members {
				if m.ID == s.Leader && "http://"+m.APIAddr == n.URL && s.Term > best {
					best, leader = s.Term, n
				}
			}
		}
		if leader == nil {
			return errors.New("nobody leads")
		}
		return nil
	})
	return leader, err
}

// WaitWhole waits until the cluster of that many nodes is whole, and returns what was
// lacking last.
func (c *Cluster) WaitWhole(ctx context.Context, size int) (lacked, err error) {
	err = c.wait(ctx, fmt.Sprintf("%d whole nodes", size), func() error {
		lacks := c.whole(ctx, size)
		if lacks != nil {
			lacked = lacks
		}
		return lacks
	})
	return lacked, err
}

// whole asks that so many nodes run and are all ready, know the same leader and are
// voters in the eyes of each.
func (c *Cluster) whole(ctx context.Context, size int) error {
	leader, answer := "", c.statuses(ctx)
	if len(answer) != size {
		return fmt.Errorf("%d nodes answer", len(answer))
	}
	for n, s := range answer {
		switch {
		case !n.ready(ctx, c.client):
			return fmt.Errorf("%s is not ready", n.Name)
		case s.Leader == "" || leader != "" && s.Leader != leader:
			return fmt.Errorf("%s knows the leader %q, another %q", n.Name, s.Leader, leader)
		case len(s.Members) != size:
			return fmt.Errorf("%s sees %d members", n.Name, len(s.Members))
		}
		leader = s.Leader
		for _, m := range s.Members {
			if m.State == muster.MemberLearner || !m.Alive {
				return fmt.Errorf("%s sees %s %s, alive %t", n.Name, m.Name, m.State, m.Alive)
			}
		}
	}
	return nil
}

// wait tries until there is no error any more, and returns the last one at the end of ctx.
func (c *Cluster) wait(ctx context.Context, what string, try func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; at last: %w", what, ctx.Err(), err)
		}
	}
}

// id is the member id of a node, as the others know it.
func (c *Cluster) id(ctx context.Context, n *Node) (string, error) {
	for _, s := range c.statuses(ctx) {
		for _, m := range s.Members {
			if "http://"+m.APIAddr == n.URL {
				return m.ID, nil
			}
		}
	}
	return "", fmt.Errorf("nobody knows the id of %s", n.Name)
}

// Term is the highest term and commit index that a node says.
func (c *Cluster) Term(ctx context.Context) (term, commit uint64) {
	for _, s := range c.statuses(ctx) {
		term, commit = max(term, s.Term), max(commit, s.CommitIndex)
	}
	return term, commit
}

// elections is how many elections each process that runs has begun because the
// leader's was gone, by node and life.
func (c *Cluster) elections(ctx context.Context) map[string]uint64 {
	counts := map[string]uint64{}
	for _, n := range c.nodes {
		if !n.Alive() {
			continue
		}
		life := n.lives()
		if v, err := c.metric(ctx, n, fastElections); err == nil {
			counts[fmt.Sprintf("%s/%d", n.Name, life)] = uint64(v)
		}
	}
	return counts
}

// metric reads a metric without labels of a node.
func (c *Cluster) metric(ctx context.Context, n *Node, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL+"/metrics", nil)
	if err != nil {
		return 0, fmt.Errorf("making a request: %w", err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("asking for metrics: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("reading metrics: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", n.Name, name)
}
