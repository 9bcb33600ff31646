package cluster_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster"
)

// TestSlowDiskRefusesRegistrationsFirst: behind disks that take 200 ms a write,
// ordinary writes are refused on every node, what is vital is applied through every
// node, the leader stays, and all is well again when the backlog is gone.
func TestSlowDiskRefusesRegistrationsFirst(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, func(n *node) { n.cfg.Timing.Profile = cluster.ProfileSlow }).start()
	leader := g.leader()
	term := leader.CurrentTerm()
	follower := g.others(leader)[0]
	leader.write("before")
	for _, n := range g.nodes {
		n.faults.Log.Delay(200 * time.Millisecond)
	}
	ops := make([][]byte, 2000)
	for i := range ops {
		ops[i] = fmt.Appendf(nil, "w%d", i)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	flood := func() {
		for range 4 {
			wg.Go(func() { leader.Propose(t.Context(), ops) })
		}
	}
	flood()
	for _, n := range []*node{leader, follower} {
		eventually(t, "ordinary writes to be refused on "+n.cfg.Name, func() bool {
			err := n.Overloaded()
			if err == nil {
				flood()
				return false
			}
			if e, ok := errors.AsType[*muster.Error](err); !ok || e.Code != muster.CodeOverloaded || e.RetryAfter < time.Second || e.RetryAfter > 5*time.Second {
				t.Errorf("%s refuses with %v, to come again after %s", n.cfg.Name, err, e.RetryAfter)
			}
			return true
		})
		wg.Go(func() {
			if err := n.ProposeVital(t.Context(), [][]byte{[]byte("wvital-" + n.cfg.Name)})[0].Err; err != nil {
				t.Errorf("what is vital, through %s: %v", n.cfg.Name, err)
			}
		})
	}
	wg.Wait()
	for _, n := range g.nodes {
		n.faults.Log.Delay(0)
	}
	for _, n := range []*node{leader, follower} {
		eventually(t, "writes to be taken again on "+n.cfg.Name, func() bool { return n.Overloaded() == nil })
		n.write("after")
	}
	if now := leader.CurrentTerm(); now != term {
		t.Errorf("the term went from %d to %d", term, now)
	}
	if writes, vital := leader.shed("write"), leader.shed("vital"); writes == 0 || vital != 0 {
		t.Errorf("%v writes and %v vital operations are counted as shed", writes, vital)
	}
}

func (n *node) shed(class string) (count float64) {
	n.t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "muster_cluster_shed_operations_total" && m.GetLabel()[0].GetValue() == class {
				count += m.GetCounter().GetValue()
			}
		}
	}
	return count
}
