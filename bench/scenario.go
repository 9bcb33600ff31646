package bench

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// scenario is one row of what can be measured.
type scenario struct {
	name  string
	what  string // for people
	unit  string // what is counted as an operation
	fresh bool   // wants a cluster nothing was done to
	kills bool   // kills processes
	ask   string // what it does that a running cluster's owner has to ask for by its name; "": nothing
	files int    // how many files this process has to open; 0: few
	// takes is about how long it takes beside the measured durations of the Config.
	takes time.Duration
	run   func(context.Context, *world) ([]Result, error)
}

func (s *scenario) expected(cfg Config) time.Duration {
	if cfg.Quick {
		return 500 * time.Millisecond
	}
	return s.takes + 2*cfg.Duration
}

// Scenario describes one scenario, for help and documents.
type Scenario struct{ Name, What string }

// Scenarios are all there are, in the order in which they run.
func Scenarios() []Scenario {
	var all []Scenario
	for _, s := range scenarios() {
		all = append(all, Scenario{s.name, s.what})
	}
	return all
}

func chosen(cfg Config) []*scenario {
	var list []*scenario
	for _, s := range scenarios() {
		if cfg.Only == nil || cfg.Only.MatchString(s.name) {
			list = append(list, s)
		}
	}
	return list
}

// names reports whether a scenario was asked for by its very name, and not merely by an
// expression that also fits it.
func (c Config) names(scenario string) bool {
	if c.Only == nil {
		return false
	}
	for part := range strings.SplitSeq(c.Only.String(), "|") {
		if strings.Trim(part, "^$()") == scenario {
			return true
		}
	}
	return false
}

// scenarios is the table.
func scenarios() []*scenario {
	list := []*scenario{
		{name: "register", unit: "registrations", what: "new instances with a ttl, one a request, over all nodes; floor: Apply of as many bytes on three bare raft nodes", takes: 3 * time.Second, run: runRegister},
		{name: "heartbeat/single", unit: "renewals", what: "one lease a request, over all nodes; floor: net/http, same answer", takes: time.Second, run: runHeartbeat},
		{name: "heartbeat/batch", unit: "renewals", what: "1,000 leases a request, over all nodes; latency is of a request", run: runHeartbeats},
	}
	for _, size := range []int{10, 100, 1000} {
		for _, consistency := range []string{"local", "linearizable"} {
			for _, role := range []string{"leader", "follower"} {
				list = append(list, &scenario{
					name: fmt.Sprintf("read/%d/%s/%s", size, consistency, role), unit: "reads",
					what: fmt.Sprintf("a service of %d instances, %s, asked of %s; floor: net/http, same answer", size, consistency, role),
					run: func(ctx context.Context, w *world) ([]Result, error) {
						return runRead(ctx, w, size, consistency, role)
					},
				})
			}
		}
	}
	for _, size := range []int{10, 1000} {
		list = append(list, &scenario{
			name: fmt.Sprintf("pick/%d", size), unit: "picks", what: fmt.Sprintf("pick one of %d, over all nodes; floor: net/http, same answer", size),
			run: func(ctx context.Context, w *world) ([]Result, error) { return runPick(ctx, w, size) },
		})
	}
	for _, count := range []int{100, 1000, 10_000} {
		s := &scenario{
			name: fmt.Sprintf("watch/%d", count), unit: "deliveries", takes: time.Duration(count) * 500 * time.Microsecond,
			what: fmt.Sprintf("%d streams of one service over all nodes; latency: from the start of a change to a watcher told", count),
			run:  func(ctx context.Context, w *world) ([]Result, error) { return runWatch(ctx, w, count) },
		}
		if count >= 1000 {
			s.files = count + 500
		}
		list = append(list, s)
	}
	for _, pair := range [][2]string{{"leader", "follower"}, {"follower", "leader"}, {"follower", "follower"}} {
		list = append(list, &scenario{
			name: "propagation/" + pair[0] + "-" + pair[1], unit: "changes",
			what: fmt.Sprintf("a change written on a %s until a stream on a %s tells it; ten streams, a change of each every 100 ms", pair[0], pair[1]),
			run:  func(ctx context.Context, w *world) ([]Result, error) { return runPropagation(ctx, w, pair[0], pair[1]) },
		})
	}
	return append(list,
		&scenario{name: "expiry", unit: "expiries", ask: "it lets leases run out, which count with those of others", what: "leases of 1 s that fall silent; latency: how late a stream tells it, after ttl since the last beat was sent", takes: 3 * time.Second, run: runExpiry},
		&scenario{name: "failover", unit: "kills", what: "kill -9 of the leader's process; latency: until a write sent after it is acknowledged by a survivor", fresh: true, kills: true, takes: 15 * time.Second, run: runFailover},
		&scenario{name: "footprint", unit: "instances", what: "100,000 instances of the default ttl: memory, and processor time with their beats", fresh: true, ask: "it fills the cluster with 100,000 instances", takes: 20 * time.Second, run: runFootprint},
	)
}
