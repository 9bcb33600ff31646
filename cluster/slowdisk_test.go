package cluster_test

import (
	"context"
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
// node, and all is well again when the backlog is gone.
func TestSlowDiskRefusesRegistrationsFirst(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, func(n *node) { n.cfg.Timing.Profile = cluster.ProfileSlow }).start()
	leader := g.leader()
	follower := g.others(leader)[0]
	leader.write("before")
	for _, n := range g.nodes {
		n.faults.Log.Delay(200 * time.Millisecond)
	}
	ops := make([][]byte, 2000)
	for i := range ops {
		ops[i] = fmt.Appendf(nil, "w%d", i)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := leader.Propose(ctx, ops)[0].Err; err != nil {
					pause(ctx, 20*time.Millisecond)
				}
			}
		})
	}
	for _, n := range []*node{leader, follower} {
		eventually(t, "ordinary writes to be refused on "+n.cfg.Name, func() bool {
			err := n.Overloaded()
			if err == nil {
				return false
			}
			if e, ok := errors.AsType[*muster.Error](err); !ok || e.Code != muster.CodeOverloaded || e.RetryAfter < time.Second || e.RetryAfter > 5*time.Second {
				t.Errorf("%s refuses with %v", n.cfg.Name, err)
			}
			return true
		})
		// On a busy machine a leader may stumble; what it sheds is counted below.
		eventually(t, "what is vital to be applied through "+n.cfg.Name, func() bool {
			return n.ProposeVital(t.Context(), [][]byte{[]byte("wvital-" + n.cfg.Name)})[0].Err == nil
		})
	}
	stop()
	wg.Wait()
	for _, n := range g.nodes {
		n.faults.Log.Delay(0)
	}
	for _, n := range []*node{leader, follower} {
		eventually(t, "writes to be taken again on "+n.cfg.Name, func() bool { return n.Overloaded() == nil })
		n.write("after")
	}
	if writes, vital := leader.shed("write"), leader.shed("vital"); writes == 0 || vital != 0 {
		t.Errorf("%v writes and %v vital operations are counted as shed", writes, vital)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
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
