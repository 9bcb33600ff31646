package health_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/health"
)

// rig is a cluster of supervisors over one copy of the registry: what the log and
// the peer port do in a node, it does in memory. Checks of the type service ask
// the rig, so that a scenario says what each node sees, also in virtual time.
type rig struct {
	t     testing.TB
	began time.Time
	nodes []*rigNode

	mu        sync.Mutex
	instances map[muster.InstanceKey]*muster.Instance
	index     uint64
	leader    *rigNode
	term      uint64
	endLead   func()
	lines     []string
	refuse    bool // decisions are not applied
}

type rigNode struct {
	r        *rig
	id       string
	sup      *health.Supervisor
	registry *prometheus.Registry
	handlers map[string]func(context.Context, string, []byte) ([]byte, error)
	stop     func()
	alive    bool            // guarded by rig.mu
	failing  map[string]bool // guarded by rig.mu: dependencies this node sees failing
	deaf     bool            // guarded by rig.mu: its messages do not arrive
	lost     [][]byte        // guarded by rig.mu: those that did not
}

func newRig(t testing.TB, count int, guard *health.Guard) *rig {
	r := &rig{t: t, began: time.Now(), instances: make(map[muster.InstanceKey]*muster.Instance)}
	if guard == nil {
		guard = health.NewGuard(health.GuardConfig{Loopback: true})
	}
	for n := range count {
		r.nodes = append(r.nodes, &rigNode{r: r, id: fmt.Sprintf("n%d", n+1), failing: make(map[string]bool)})
	}
	for _, n := range r.nodes {
		n.start(guard)
	}
	r.lead(r.nodes[0])
	t.Cleanup(r.close)
	return r
}

func (n *rigNode) start(guard *health.Guard) {
	n.handlers = make(map[string]func(context.Context, string, []byte) ([]byte, error))
	n.registry = prometheus.NewRegistry()
	var err error
	n.sup, err = health.New(health.Config{}, health.Deps{State: n, Log: n, Raft: n, Peers: n, Guard: guard, Registerer: n.registry})
	if err != nil {
		n.r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	sup := n.sup
	wg.Go(func() { _ = sup.Run(ctx) })
	n.stop = func() { cancel(); wg.Wait() }
	n.r.mu.Lock()
	n.alive = true
	n.r.mu.Unlock()
}

func (r *rig) close() {
	r.lead(nil)
	for _, n := range r.nodes {
		n.stop()
	}
}

// kill ends a node's supervisor.
func (n *rigNode) kill() {
	n.r.mu.Lock()
	n.alive = false
	n.r.mu.Unlock()
	n.stop()
}

// lead makes n (nil: nobody) the leader of a new term.
func (r *rig) lead(n *rigNode) {
	if r.endLead != nil {
		r.endLead()
		r.endLead = nil
	}
	r.mu.Lock()
	r.term++
	r.leader = n
	term := r.term
	r.mu.Unlock()
	if n == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.sup.Lead(ctx, term) })
	r.endLead = func() { cancel(); wg.Wait() }
}

// ID, Leader, Live and Ready are what a node knows of its cluster.
func (n *rigNode) ID() string { return n.id }

func (n *rigNode) Leader() (id, apiAddr string) {
	n.r.mu.Lock()
	defer n.r.mu.Unlock()
	if n.r.leader == nil {
		return "", ""
	}
	return n.r.leader.id, ""
}

func (n *rigNode) Live() []string {
	n.r.mu.Lock()
	defer n.r.mu.Unlock()
	var ids []string
	for _, o := range n.r.nodes {
		if o.alive {
			ids = append(ids, o.id)
		}
	}
	return ids
}

func (n *rigNode) Ready() bool { return true }

// Handle and Call are its peer port.
func (n *rigNode) Handle(method string, fn func(context.Context, string, []byte) ([]byte, error)) {
	n.handlers[method] = fn
}

func (n *rigNode) Call(ctx context.Context, to, method string, body []byte) ([]byte, error) {
	n.r.mu.Lock()
	deaf := n.deaf
	if deaf {
		n.lost = append(n.lost, body)
	}
	n.r.mu.Unlock()
	if !deaf {
		for _, o := range n.r.nodes {
			if o.id == to {
				return o.handlers[method](ctx, n.id, body)
			}
		}
	}
	return nil, muster.Errorf(muster.CodeNoLeader, "no way to %s", to)
}

// Instances, Routable and Expired are its copy of the registry.
func (n *rigNode) Instances(yield func(*muster.Instance) bool) {
	n.r.mu.Lock()
	all := make([]*muster.Instance, 0, len(n.r.instances))
	for _, i := range n.r.instances {
		all = append(all, i)
	}
	n.r.mu.Unlock()
	for _, i := range all {
		if !yield(i) {
			return
		}
	}
}

func (n *rigNode) Routable(k muster.ServiceKey) int {
	n.r.mu.Lock()
	defer n.r.mu.Unlock()
	if n.failing[k.Service] {
		return 0
	}
	return 1
}

func (n *rigNode) Expired(*muster.Instance) bool { return false }

// Decide applies transitions as the state machine does.
func (n *rigNode) Decide(_ context.Context, term uint64, all []health.Transition) error {
	r := n.r
	r.mu.Lock()
	if term != r.term || r.refuse {
		r.mu.Unlock()
		return muster.Errorf(muster.CodeNoLeader, "not the leader of %d", term)
	}
	r.index++
	var c health.Changes
	slices.SortFunc(all, func(a, b health.Transition) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	for _, tr := range all {
		old := r.instances[tr.Key]
		if old == nil || old.ChecksFrom != tr.Life {
			continue
		}
		next := *old
		next.Checks = slices.Clone(old.Checks)
		for place, s := range tr.Checks {
			next.Checks[place].CheckState = s
		}
		next.HeldUntil = tr.HeldUntil
		next.Status = muster.WorstCheck(next.Checks)
		if !next.HeldUntil.IsZero() {
			next.Status = muster.StatusDown
		}
		r.instances[tr.Key] = &next
		r.note(old, &next)
		c.Instances = append(c.Instances, health.Change{Key: tr.Key, Instance: &next})
	}
	nodes := slices.Clone(r.nodes)
	r.mu.Unlock()
	for _, o := range nodes {
		o.sup.Observe(c)
	}
	return nil
}

// note writes down what changed of an instance, with the time since the start.
func (r *rig) note(old, next *muster.Instance) {
	line := fmt.Sprintf("%s %s %s", time.Since(r.began).Truncate(100*time.Millisecond), next.ID, next.Status)
	for n, c := range next.Checks {
		if old.Checks[n].Status != c.Status {
			line += fmt.Sprintf(" %s:%s", c.Name, c.Status)
			if c.Cause != "" {
				line += fmt.Sprintf("(%s)", c.Cause)
			}
		}
		if old.Checks[n].Contested != c.Contested {
			line += fmt.Sprintf(" %s:contested=%v", c.Name, c.Contested)
		}
	}
	if !old.HeldUntil.Equal(next.HeldUntil) {
		line += fmt.Sprintf(" held=%v", !next.HeldUntil.IsZero())
	}
	r.lines = append(r.lines, line)
}

// register puts an instance into the registry, normalized.
func (r *rig) register(i muster.Instance) *muster.Instance {
	r.t.Helper()
	if i.Service == "" {
		i.Service = "web"
	}
	if i.Address == "" {
		i.Address, i.Port = "127.0.0.1", 8080
	}
	if err := i.Normalize(); err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.index++
	i.ChecksFrom, i.Status = r.index, muster.StatusUnknown
	for n := range i.Checks {
		i.Checks[n].Status = muster.StatusUnknown
	}
	k := keyOf(&i)
	r.instances[k] = &i
	nodes := slices.Clone(r.nodes)
	r.mu.Unlock()
	for _, o := range nodes {
		o.sup.Observe(health.Changes{Instances: []health.Change{{Key: k, Instance: &i}}})
	}
	return &i
}

func (r *rig) deregister(i *muster.Instance) {
	r.mu.Lock()
	delete(r.instances, keyOf(i))
	nodes := slices.Clone(r.nodes)
	r.mu.Unlock()
	for _, o := range nodes {
		o.sup.Observe(health.Changes{Instances: []health.Change{{Key: keyOf(i)}}})
	}
}

// see says whether a node (nil: every node) sees the dependency fail.
func (r *rig) see(n *rigNode, dependency string, failing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.nodes {
		if n == nil || o == n {
			o.failing[dependency] = failing
		}
	}
}

func (r *rig) status(i *muster.Instance) *muster.Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.instances[keyOf(i)]
}

func (r *rig) transcript() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := strings.Join(r.lines, "\n")
	r.lines = nil
	return out
}

// wait waits for a state, in real time.
func (r *rig) wait(what string, cond func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited 30s for %s; so far:\n%s", what, r.transcript())
		}
	}
}

// metric is the sum of a metric of a node, or of all its series that have the
// label's value.
func (n *rigNode) metric(name, label string) float64 {
	n.r.t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			match := label == ""
			for _, l := range m.GetLabel() {
				match = match || l.GetValue() == label
			}
			if match {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func keyOf(i *muster.Instance) muster.InstanceKey {
	return muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}
}

// needs is an instance that is checked by what each node of the rig sees of db.
func needs(id string) muster.Instance {
	return muster.Instance{ID: id, Checks: []muster.Check{{Name: "db", Type: muster.CheckService, Service: "db"}}}
}
