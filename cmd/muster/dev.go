package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/muster-registry/muster/node"
)

func newDev(g *global) *cobra.Command {
	var nodes, port int
	logs := logFlags{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a throw-away cluster in one process, for a laptop",
		Long: `Run a cluster of nodes in one process, on loopback, with data in a temporary
folder that is removed at the end. What runs is what "muster server" runs.`,
		Example: `  muster dev
  muster dev --nodes 1 --port 8400`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if nodes < 1 || nodes > 9 {
				return usageError("--nodes %d is not between 1 and 9", nodes)
			}
			if port < 1 || port+10*(nodes-1)+2 > 65535 {
				return usageError("--port %d leaves no room for %d nodes", port, nodes)
			}
			return runDev(cmd, nodes, port, logs)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 3, "how many nodes, 1 to 9")
	cmd.Flags().IntVar(&port, "port", 7400, "API port of the first node; the others follow at +10, +20, ...")
	logs.add(cmd)
	cmd.Flags().Lookup("log-level").DefValue = "warn"
	logs.level = "warn"
	return cmd
}

func runDev(cmd *cobra.Command, count, port int, logs logFlags) (err error) {
	dir, err := os.MkdirTemp("", "muster-dev-")
	if err != nil {
		return fmt.Errorf("making a temporary folder: %w", err)
	}
	defer func() {
		if rmErr := os.RemoveAll(dir); err == nil && rmErr != nil {
			err = fmt.Errorf("removing the temporary folder: %w", rmErr)
		}
	}()
	out := &oneWriter{w: cmd.ErrOrStderr()}
	addr := func(n, offset int) string { return fmt.Sprintf("127.0.0.1:%d", port+10*n+offset) }
	var seeds []string
	for n := range count {
		seeds = append(seeds, addr(n, 2))
	}
	group, ctx := errgroup.WithContext(cmd.Context())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for n := range count {
		name := fmt.Sprintf("n%d", n+1)
		logger, level, err := logs.logger(out) // each node has a level of its own
		if err != nil {
			stop()
			return joinGroup(group, err)
		}
		member, err := node.New(node.Config{
			DataDir: filepath.Join(dir, name), Name: name, Version: version, ClusterName: "dev",
			APIAddr: addr(n, 0), PeerAddr: addr(n, 1), GossipAddr: addr(n, 2),
			Found: node.Found{BootstrapExpect: count, Join: seeds},
		}, node.Deps{Logger: logger.With("name", name), LogLevel: level})
		if err != nil {
			stop()
			if errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("%w\n  another cluster may be running: --port moves all nodes of this one", err)
			}
			return joinGroup(group, err)
		}
		group.Go(func() error { return member.Run(ctx) })
	}
	group.Go(func() error {
		for n := range count {
			if err := waitReady(ctx, "http://"+addr(n, 0)+"/readyz?require=leader"); err != nil {
				return nil // told to stop, or a node's own error ends the group
			}
		}
		devBanner(cmd, count, addr)
		return nil
	})
	return group.Wait()
}

// joinGroup waits for the nodes that run already and returns the error that
// stopped the start.
func joinGroup(group *errgroup.Group, err error) error {
	if other := group.Wait(); other != nil {
		return fmt.Errorf("%w (and then: %w)", err, other)
	}
	return err
}

func devBanner(cmd *cobra.Command, count int, addr func(n, offset int) string) {
	last := "http://" + addr(count-1, 0)
	fmt.Fprintf(cmd.OutOrStdout(), `muster dev: %d nodes are up, the first at http://%s. All is gone when this ends (ctrl-C).

  curl -sS -X PUT %s/v1/services/web/instances/web-1 -d '{"address":"10.0.0.5","port":8080,"ttl":"none"}'; echo
  curl -sS http://%s/v1/services/web; echo
`, count, addr(0, 0), last, addr(0, 0))
}

// waitReady asks url every 50 ms until it answers 200.
func waitReady(ctx context.Context, url string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("asking whether a node is ready: %w", err)
		}
		if resp, err := client.Do(req); err == nil {
			ok := resp.StatusCode == http.StatusOK
			if err := resp.Body.Close(); ok && err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// oneWriter lets several loggers write their lines one after the other.
type oneWriter struct {
	mu sync.Mutex // held while w is written to
	w  io.Writer
}

func (o *oneWriter) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(b)
}
