package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"runtime"
	"sync/atomic"
	"time"
)

// The bounds of a Config.
const (
	DefaultDuration = 2 * time.Second
	MinDuration     = 50 * time.Millisecond
	MaxDuration     = 10 * time.Minute
	DefaultClients  = 64
	MaxClients      = 1024
)

// Config says what to measure, and on what. Only Command is needed.
type Config struct {
	// Addrs are base URLs of nodes of a running cluster ("http://10.0.0.1:7400"); its
	// other nodes are found by asking. None: a cluster of three processes is started
	// on loopback, in a temporary directory, and removed at the end.
	Addrs []string
	// Command makes the command of the muster binary with these arguments. The floors
	// are processes of it too (see ServeFloor), also where Addrs are given.
	Command func(args ...string) *exec.Cmd
	// TLS is for nodes that speak it; nil is Go's own.
	TLS *tls.Config
	// Only are the scenarios to run, by name; nil is all that suit the cluster. What a
	// running one may suffer from is done to it only where a scenario's whole name is
	// one of the alternatives ("expiry|read").
	Only *regexp.Regexp
	// Duration is how long each scenario is measured, 50ms to 10m; 0 is
	// DefaultDuration. Scenarios that count events instead do not go by it.
	Duration time.Duration
	// Clients is how many requests are under way at once, 1 to 1,024; 0 is
	// DefaultClients.
	Clients int
	// Quick tries every scenario in small and for 50 ms, to see that all of it works. The figures mean nothing.
	Quick bool
	// Version is that of this build, for the report.
	Version string
	// Progress is told of each scenario when it begins and when it has ended, and of the
	// clean-up of a running cluster when that begins, by one goroutine; nil for none.
	Progress func(Progress)
}

// Progress is where a run has got to.
type Progress struct {
	N, Of    int // the scenario is the Nth, from 1
	Scenario string
	// Expected is about how long it will take.
	Expected time.Duration
	// Results are what it brought; nil while it runs.
	Results []Result
}

func (c Config) withDefaults() Config {
	if c.Duration == 0 {
		c.Duration = DefaultDuration
		if c.Quick {
			c.Duration = MinDuration
		}
	}
	if c.Clients == 0 {
		c.Clients = DefaultClients
		if c.Quick {
			c.Clients = 8
		}
	}
	if c.TLS != nil {
		// Every request, and every stream, is to have a connection of its own: HTTP/1.1.
		c.TLS = c.TLS.Clone()
		c.TLS.NextProtos = []string{"http/1.1"}
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	return c
}

// Check says what of c cannot work; nil if nothing.
func (c Config) Check() error {
	c = c.withDefaults()
	switch {
	case c.Command == nil:
		return errors.New("there is no command to start processes with")
	case c.Duration < MinDuration || c.Duration > MaxDuration:
		return fmt.Errorf("the duration %s is not between %s and %s", c.Duration, MinDuration, MaxDuration)
	case c.Clients < 1 || c.Clients > MaxClients:
		return fmt.Errorf("%d clients are not between 1 and %d", c.Clients, MaxClients)
	case len(chosen(c)) == 0:
		return fmt.Errorf("no scenario is called like %q", c.Only)
	}
	return nil
}

// Run measures, and returns what it measured beside an error too: that of a scenario
// which failed, after which the others go on, or that of ctx. What a scenario put into a running cluster is taken out again.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	started := time.Now()
	report := &Report{
		Schema: Schema, Started: started.UTC().Truncate(time.Second), Machine: Describe(),
		Muster: cfg.Version, Commit: commit(), Go: runtime.Version(),
		Clients: cfg.Clients, DurationMS: cfg.Duration.Milliseconds(), Quick: cfg.Quick, Note: sharedNote,
		Results: []Result{},
	}
	w := &world{cfg: cfg, transport: newTransport(cfg.TLS), report: report}
	w.client = &http.Client{Transport: w.transport, Timeout: requestTimeout}
	err := w.run(ctx)
	if end := w.close(ctx); err == nil {
		err = end
	}
	report.Seconds = round(time.Since(started).Seconds())
	return report, err
}

// requestTimeout bounds one request of a load; the nodes give up earlier.
const requestTimeout = 30 * time.Second

func newTransport(conf *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig: conf, MaxIdleConnsPerHost: 2 * MaxClients, IdleConnTimeout: 50 * time.Second,
		DisableCompression: true, // the bodies are compared with a floor that sends them as they are
	}
}

// world is what the scenarios of one run share.
type world struct {
	cfg       Config
	transport *http.Transport
	client    *http.Client
	report    *Report

	cluster *Cluster // nil until the first scenario
	floor   *floor   // of net/http; nil until it is needed

	// namespace is this run's own in the cluster; keys and fixtures are what is in it.
	namespace string
	keys      []string // paths of instances to take out of a running cluster
	fixtures  map[string]bool
	repeated  atomic.Int64 // batches of a fill that had to be sent again
}

func (w *world) run(ctx context.Context) error {
	list := chosen(w.cfg)
	var failed error
	for n, s := range list {
		p := Progress{N: n + 1, Of: len(list), Scenario: s.name, Expected: s.expected(w.cfg)}
		w.cfg.Progress(p)
		results, err := w.one(ctx, s)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
			if ctx.Err() != nil || w.cluster == nil {
				return failed // told to stop, or there is nothing to measure
			}
			results = []Result{{Scenario: s.name, Unit: s.unit, Failed: err.Error()}}
			if w.cluster.owned { // whatever it is like now, the next is to have a good one
				if err := w.stopCluster(); err != nil {
					return errors.Join(failed, err)
				}
			}
		}
		w.report.Results = append(w.report.Results, results...)
		p.Results = results
		w.cfg.Progress(p)
	}
	return failed
}

// one runs one scenario on the cluster it needs.
func (w *world) one(ctx context.Context, s *scenario) ([]Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if why := w.unfit(s); why != "" {
		return []Result{{Scenario: s.name, Unit: s.unit, Skipped: why}}, nil
	}
	if err := w.prepare(ctx, s); err != nil {
		return nil, err
	}
	results, err := s.run(ctx, w)
	for n := range results {
		r := &results[n]
		if r.Scenario == "" {
			r.Scenario = s.name
		}
		if r.Unit == "" {
			r.Unit = s.unit
		}
	}
	return results, err
}

// unfit says why a scenario cannot be run here; "" if it can.
func (w *world) unfit(s *scenario) string {
	switch {
	case s.kills && len(w.cfg.Addrs) > 0:
		return "it kills processes, and does that only to a cluster it has started"
	case s.ask != "" && len(w.cfg.Addrs) > 0 && !w.cfg.names(s.name):
		return fmt.Sprintf("%s: name it with --run %s to have that done to a cluster in use", s.ask, s.name)
	case s.files > 0:
		if have := openFiles(); have < s.files {
			return fmt.Sprintf("it opens %d files, and this process may open %d (ulimit -n)", s.files, have)
		}
	}
	return ""
}

// prepare sees to it that there is a cluster, an unused one if the scenario wants that.
func (w *world) prepare(ctx context.Context, s *scenario) error {
	if w.cluster != nil && (!s.fresh || w.cfg.Quick || len(w.cfg.Addrs) > 0) {
		return nil
	}
	if err := w.stopCluster(); err != nil {
		return err
	}
	var err error
	if len(w.cfg.Addrs) > 0 {
		w.cluster, err = Attach(ctx, w.client, w.cfg.Addrs)
		w.report.Target, w.report.Note = "running", remoteNote
	} else {
		w.cluster, err = Start(ctx, w.cfg.Command)
		w.report.Target = "started"
	}
	if err != nil {
		return err
	}
	w.report.Nodes = len(w.cluster.Nodes)
	w.namespace, w.fixtures = fmt.Sprintf("bench-%x", time.Now().UnixNano()), map[string]bool{}
	return nil
}

func (w *world) stopCluster() error {
	if w.cluster == nil {
		return nil
	}
	err := w.cluster.Stop()
	w.cluster = nil
	w.transport.CloseIdleConnections()
	return err
}

// close takes away what the run has left behind, also when ctx has ended.
func (w *world) close(ctx context.Context) error {
	var err error
	if w.cluster != nil && !w.cluster.owned {
		if n := len(chosen(w.cfg)); len(w.keys) > 0 {
			w.cfg.Progress(Progress{N: n, Of: n, Scenario: "clean-up", Expected: time.Duration(len(w.keys)) * time.Millisecond})
		}
		err = w.cleanUp(ctx)
	}
	err = errors.Join(err, w.stopCluster())
	if w.floor != nil {
		err = errors.Join(err, w.floor.stop())
	}
	w.transport.CloseIdleConnections()
	return err
}

// size is n, or a hundredth of it in a quick run; never less than least.
func (w *world) size(n, least int) int {
	if w.cfg.Quick {
		n /= 100
	}
	return max(n, least)
}
