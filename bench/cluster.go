package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/muster-registry/muster"
)

// patience is how long a state is waited for that must come.
const patience = 60 * time.Second

// Cluster is the nodes that are measured.
type Cluster struct {
	Nodes []*Node
	owned bool   // started here
	dir   string // of what was started
}

// Node is one node.
type Node struct {
	URL  string // "http://127.0.0.1:7400"
	proc *process
}

// Attach finds the nodes of a running cluster: those that the given ones know, where
// they can be reached from here, or else those that were given.
func Attach(ctx context.Context, client *http.Client, addrs []string) (*Cluster, error) {
	var failures []error
	for _, addr := range addrs {
		info, err := clusterAt(ctx, client, addr)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		scheme, _, _ := strings.Cut(addr, "://")
		found := &Cluster{}
		for _, m := range info.Members {
			url := scheme + "://" + m.APIAddr
			if !m.Alive {
				continue
			}
			if _, err := clusterAt(ctx, client, url); err != nil {
				found.Nodes = nil
				break // not reached at what it calls itself: take what was given
			}
			found.Nodes = append(found.Nodes, &Node{URL: url})
		}
		if found.Nodes == nil {
			for _, a := range addrs {
				found.Nodes = append(found.Nodes, &Node{URL: a})
			}
		}
		return found, nil
	}
	return nil, fmt.Errorf("no node answered: %w", errors.Join(failures...))
}

func clusterAt(ctx context.Context, client *http.Client, url string) (muster.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var info muster.Cluster
	text, err := send(ctx, client, "GET", url+"/v1/cluster", "", 200)
	if err == nil {
		err = json.Unmarshal([]byte(text), &info)
	}
	return info, err
}

// Leader is the node that leads, waited for if there is none. Where the nodes were
// given and their own names are others, it is an error.
func (c *Cluster) Leader(ctx context.Context, client *http.Client) (*Node, error) {
	var found *Node
	err := until(ctx, "a leader", func() (bool, error) {
		for _, n := range c.Nodes {
			info, err := clusterAt(ctx, client, n.URL)
			if err != nil {
				continue
			}
			for _, m := range info.Members {
				if m.ID != info.Leader {
					continue
				}
				for _, o := range c.Nodes {
					if strings.HasSuffix(o.URL, "://"+m.APIAddr) && (o.proc == nil || o.proc.alive()) {
						found = o
						return true, nil
					}
				}
			}
		}
		return false, nil
	})
	return found, err
}

// Followers are the nodes that are not n.
func (c *Cluster) Followers(n *Node) []*Node {
	var others []*Node
	for _, o := range c.Nodes {
		if o != n {
			others = append(others, o)
		}
	}
	return others
}

// role finds the nth node that plays a part; the leader itself stands in for a
// follower where it is alone.
func (w *world) role(ctx context.Context, role string, n int) (*Node, error) {
	leader, err := w.cluster.Leader(ctx, w.client)
	if err != nil || role == "leader" {
		return leader, err
	}
	others := w.cluster.Followers(leader)
	if len(others) == 0 {
		return leader, nil
	}
	return others[n%len(others)], nil
}

// meter tells what the nodes that run have used.
func (c *Cluster) meter(client *http.Client) meter {
	m := meter{client: client}
	for _, n := range c.Nodes {
		m.urls = append(m.urls, n.URL)
	}
	return m
}

// ready waits until a node serves, and knows a leader.
func (n *Node) ready(ctx context.Context, client *http.Client) error {
	return until(ctx, n.URL+" to be ready", func() (bool, error) {
		_, err := send(ctx, client, "GET", n.URL+"/readyz?require=leader", "", 200)
		if n.proc != nil && !n.proc.alive() {
			return false, fmt.Errorf("a node has ended: %s", n.proc.lastWords())
		}
		return err == nil, nil
	})
}

// until waits until cond holds or fails, asked every 20 ms.
func until(ctx context.Context, what string, cond func() (bool, error)) error {
	return untilEvery(ctx, 20*time.Millisecond, what, cond)
}

// untilSoon is until for what comes within milliseconds. What is measured is not
// measured by it.
func untilSoon(ctx context.Context, what string, cond func() (bool, error)) error {
	return untilEvery(ctx, 2*time.Millisecond, what, cond)
}

func untilEvery(ctx context.Context, every time.Duration, what string, cond func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %s for %s", patience, what))
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := cond(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
