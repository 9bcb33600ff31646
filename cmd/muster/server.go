package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
	"github.com/muster-registry/muster/node"
	"github.com/muster-registry/muster/tracing"
)

func newServer(g *global) *cobra.Command {
	var cfg node.Config
	var logs logFlags
	var fastFailover bool
	var minFree int
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a node",
		Long: `Run a node of a cluster until it is told to stop (SIGINT or SIGTERM; a second
signal ends it at once).

Without --join a node founds a cluster of its own (--bootstrap-expect 1). Three
nodes that are all given --bootstrap-expect 3 and each other's gossip addresses
found a cluster together; a node given --join alone only joins one.

Traces of requests are sent by OTLP where the OTEL_* variables of OpenTelemetry say
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, …); without them there are none.

Exit codes: 0 stopped as asked; 1 error; 2 usage; 65 corrupt data; 74 disk error
or unwritable data directory; 78 configuration, or a data directory in use.`,
		Example: `  muster server --data-dir /var/lib/muster
  muster server --data-dir d1 --name n1 --bootstrap-expect 3 \
      --join 127.0.0.1:7402,127.0.0.1:7412,127.0.0.1:7422`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("bootstrap-expect") {
				cfg.Found.BootstrapExpect = 1
				if len(cfg.Found.Join) > 0 {
					cfg.Found.BootstrapExpect = 0
				}
			}
			if cfg.DataDir == "" {
				return configError("--data-dir is needed: the folder that holds all the node must not forget")
			}
			if cfg.StreamsPerAddress < 1 {
				return configError("--max-streams-per-address %d is less than one", cfg.StreamsPerAddress)
			}
			if cfg.ConnectionsPerAddress < 1 {
				return configError("--max-connections-per-address %d is less than one", cfg.ConnectionsPerAddress)
			}
			if minFree < 0 || minFree > 90 {
				return configError("--min-free-percent %d is not between 0 and 90", minFree)
			}
			if cfg.MinFreePercent = minFree; minFree == 0 {
				cfg.MinFreePercent = -1
			}
			cfg.Version, cfg.SlowFailover = version, !fastFailover
			if err := checkAccess(cfg.Access); err != nil {
				return err
			}
			logger, level, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			traced, stopTracing, err := tracing.Start(cmd.Context(), tracing.Config{Service: "muster", Version: version, Logger: logger})
			if err != nil {
				return configError("traces: %w", err)
			}
			defer stopTracing()
			cfg.Tracing = traced
			tuneGC()
			n, err := node.New(cfg, node.Deps{Logger: logger, LogLevel: level})
			if err != nil {
				return err
			}
			banner(cmd.ErrOrStderr(), cfg, n)
			return runNode(cmd.Context(), n, logger)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", "", "folder that holds all the node must not forget")
	f.StringVar(&cfg.Name, "name", "", "name shown to people (default: the node's id)")
	f.StringVar(&cfg.Zone, "zone", "", "zone the node runs in")
	f.StringVar(&cfg.APIAddr, "api-addr", "127.0.0.1:7400", "where the HTTP API listens")
	f.StringVar(&cfg.PeerAddr, "peer-addr", "127.0.0.1:7401", "where raft and the nodes' own calls listen")
	f.StringVar(&cfg.GossipAddr, "gossip-addr", "127.0.0.1:7402", "where gossip listens (TCP and UDP)")
	f.StringVar(&cfg.Advertise, "advertise", "", "host that others reach all three ports at, where it is not the bound one")
	f.IntVar(&cfg.Found.BootstrapExpect, "bootstrap-expect", 1, "how many nodes found a new cluster; 0 with --join: never found one, only join")
	f.StringSliceVar(&cfg.Found.Join, "join", nil, "gossip addresses of nodes to find, the own may be among them")
	f.StringVar(&cfg.ClusterName, "cluster-name", "muster", "keeps the gossip of different clusters apart")
	f.StringVar(&cfg.RaftProfile, "raft-profile", "default", "timeouts: fast (0.3 s), default (0.5 s), slow (1 s, for poor disks and links)")
	f.StringVar(&cfg.Backups.Dir, "backup-dir", "", "write backups into this folder (default: none)")
	f.DurationVar(&cfg.Backups.Interval, "backup-interval", time.Hour, "time from one backup to the next, at least 1s")
	f.IntVar(&cfg.Backups.Keep, "backup-keep", 24, "how many of this node's backups are kept, the latest")
	f.IntVar(&cfg.StreamsPerAddress, "max-streams-per-address", muster.DefaultStreamsPerAddress, "how many streams of changes one client address may have open (loopback any number)")
	f.IntVar(&cfg.ConnectionsPerAddress, "max-connections-per-address", muster.DefaultConnectionsPerAddress, "how many other connections one client address may have open (loopback any number)")
	f.IntVar(&minFree, "min-free-percent", 10, "how much of the data directory's file system, and at most 4 GiB, is to stay free: below it the node gives up leadership and refuses writes; 0: no limit")
	f.BoolVar(&fastFailover, "fast-failover", true, "begin an election at once when the leader's process is gone, instead of waiting for timers")
	f.StringVar(&cfg.Secrets.ClusterKeyFile, "cluster-key-file", "", "file of the cluster's key (see muster keygen): nodes encrypt what they say to each other, and speak only with those that have it")
	f.StringVar(&cfg.Secrets.TLSCertFile, "tls-cert-file", "", "certificate of the API port, in PEM; read again when it changes")
	f.StringVar(&cfg.Secrets.TLSKeyFile, "tls-key-file", "", "key of the certificate, in PEM")
	f.BoolVar(&cfg.Insecure, "insecure", false, "allow addresses that others can reach although what is said on them is not encrypted")
	f.BoolVar(&cfg.Access.On, "access-log", false, "log requests, at level info")
	f.Float64Var(&cfg.Access.Sample, "access-log-sample", 1, "which share of the requests, 0 to 1, the access log has; answers of 500 and above and slow ones it has always")
	f.DurationVar(&cfg.Access.Slow, "access-log-slow", time.Second, "from how long on an answer is slow; 0: none is")
	logs.add(cmd)
	return cmd
}

func checkAccess(a httpapi.Access) error {
	if !(a.Sample >= 0 && a.Sample <= 1) { // NaN is neither
		return configError("--access-log-sample %v is not between 0 and 1", a.Sample)
	}
	if a.Slow < 0 {
		return configError("--access-log-slow %s is negative", a.Slow)
	}
	return nil
}

// gcPercent trades a little CPU for memory: most of what a node holds lives long,
// so that the usual 100 would keep as much again for garbage that never comes.
const gcPercent = 50

// tuneGC leaves the collector alone where the operator has tuned it.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// runNode runs n and logs why it stopped, where that was not asked for.
func runNode(ctx context.Context, n *node.Node, logger *slog.Logger) error {
	var told sync.WaitGroup
	tell, stop := context.WithCancel(ctx)
	if manager := findServiceManager(logger); manager != nil {
		told.Go(func() { manager.follow(tell, n) })
	}
	err := n.Run(ctx)
	stop()
	told.Wait()
	if err == nil {
		logger.Info("stopped")
	}
	return err
}

// banner says what an operator wants to know at the first look.
func banner(w io.Writer, cfg node.Config, n *node.Node) {
	name := cfg.Name
	if name == "" {
		name = n.ID()
	}
	scheme := "http"
	if cfg.Secrets.TLSCertFile != "" {
		scheme = "https"
	}
	expect := fmt.Sprintf("founded by %d", cfg.Found.BootstrapExpect)
	if cfg.Found.BootstrapExpect == 0 {
		expect = "join only"
	}
	data := cfg.DataDir
	if abs, err := filepath.Abs(data); err == nil {
		data = abs
	}
	fmt.Fprintf(w, `muster %s
  node      %s (id %s)
  cluster   %s, %s%s
  api       %s://%s
  peer      %s
  gossip    %s
  data      %s
  security  %s

  curl -sS %s://%s/v1/cluster

`, version, name, n.ID(), cfg.ClusterName, expect, joining(cfg.Found.Join), scheme, n.APIAddr(), cfg.PeerAddr, cfg.GossipAddr, data, security(cfg), scheme, n.APIAddr())
}

// security says in a line who may do what with a node.
func security(cfg node.Config) string {
	peers, api := "no cluster key", "no TLS"
	if cfg.Secrets.ClusterKeyFile != "" {
		peers = "peers encrypted by the cluster key"
	}
	if cfg.Secrets.TLSCertFile != "" {
		api = "TLS on the API"
	}
	line := peers + ", " + api + ", no tokens: whoever reaches the API may change the registry"
	if cfg.Insecure {
		return "INSECURE: " + line
	}
	return line
}

func joining(join []string) string {
	if len(join) == 0 {
		return ""
	}
	return ", joins " + strings.Join(join, " ")
}

// logFlags are the flags of a verb that logs.
type logFlags struct{ format, level string }

func (l *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.format, "log-format", "text", "text or json")
	cmd.Flags().StringVar(&l.level, "log-level", "info", "debug, info, warn or error, in any case")
}

// logger makes a logger, and what changes its level later.
func (l *logFlags) logger(w io.Writer) (*slog.Logger, *node.LogLevel, error) {
	var configured slog.Level
	if !slices.Contains(muster.LogLevels, strings.ToLower(l.level)) || configured.UnmarshalText([]byte(l.level)) != nil {
		return nil, nil, configError("--log-level %q is none of %s", l.level, strings.Join(muster.LogLevels, ", "))
	}
	level := node.NewLogLevel(configured)
	opts := &slog.HandlerOptions{Level: level}
	switch l.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), level, nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), level, nil
	}
	return nil, nil, configError("--log-format %q is neither text nor json", l.format)
}

// build describes this binary.
type build struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func buildInfo() build {
	return build{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
}
