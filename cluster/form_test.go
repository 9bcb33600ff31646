package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster"
)

func TestThreeNodesForm(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	leader := g.leader()
	for i, n := range g.nodes {
		n.write(fmt.Sprintf("from %d", i))
	}
	if got := g.converge(); len(got) != 3 {
		t.Errorf("the state holds %q, want three writes", got)
	}
	id := leader.ClusterID()
	if len(id) != 32 {
		t.Errorf("the cluster id is %q, want 32 characters", id)
	}
	for _, n := range g.nodes {
		eventually(t, "readiness", func() bool { _, ready := n.Freshness(); return ready })
		if n.ClusterID() != id {
			t.Errorf("%s says its cluster is %q, the leader %q", n.cfg.Name, n.ClusterID(), id)
		}
		leaderID, api := n.Leader()
		if leaderID != leader.ID() || api != leader.cfg.Addrs.API {
			t.Errorf("%s says %s at %s leads, want %s at %s", n.cfg.Name, leaderID, api, leader.ID(), leader.cfg.Addrs.API)
		}
		if got := len(n.Voters()); got != 3 {
			t.Errorf("%s counts %d voters, want 3", n.cfg.Name, got)
		}
		eventually(t, "a status that knows everybody", func() bool { return complete(n.Status(), 3) })
	}
}

// complete reports whether nothing is missing in what a node says of n members.
func complete(c muster.Cluster, n int) bool {
	leaders := 0
	for _, m := range c.Members {
		if m.State == muster.MemberLeader {
			leaders++
		}
		if !m.Alive || m.APIAddr == "" || m.PeerAddr == "" || m.AppliedIndex == 0 || m.LagMS < 0 {
			return false
		}
	}
	return len(c.Members) == n && leaders == 1 && c.Leader != "" && c.CommitIndex > 0 && c.Term > 0
}

func TestSingleNode(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1).start()
	n := g.leader()
	n.write("alone")
	if err := n.ReadIndex(t.Context()); err != nil {
		t.Fatalf("ReadIndex: %v", err)
	}
	if stale, ready := n.Freshness(); !ready || stale > time.Second {
		t.Errorf("Freshness is %s, %v", stale, ready)
	}
	if err := n.TransferLeadership(t.Context(), ""); !errors.Is(err, muster.CodeConflict) {
		t.Errorf("handing leadership to nobody: %v, want conflict", err)
	}
	if err := n.RemoveMember(t.Context(), n.ID()); !errors.Is(err, muster.CodeConflict) {
		t.Errorf("removing the only member: %v, want conflict", err)
	}
	if err := n.RemoveMember(t.Context(), "nobody"); !errors.Is(err, muster.CodeUnknownMember) {
		t.Errorf("removing an unknown member: %v, want unknown_member", err)
	}
}

func TestManyOperationsInOneCallKeepTheirOrder(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	n := g.follower()
	const many = 5000
	ops := make([][]byte, many)
	for i := range ops {
		ops[i] = fmt.Appendf(nil, "w%0200d", i)
	}
	for i, o := range n.Propose(t.Context(), ops) {
		if o.Err != nil {
			t.Fatalf("operation %d: %v", i, o.Err)
		}
		if want := string(ops[i][1:]); string(o.Result[8:]) != want {
			t.Fatalf("operation %d has the result %.20q, want %.20q", i, o.Result[8:], want)
		}
	}
	for i, w := range g.converge() {
		if w != string(ops[i][1:]) {
			t.Fatalf("write %d is %.20q: out of order", i, w)
		}
	}
}

func TestReadIndexSeesWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	leader := g.leader()
	for i := range 50 {
		text := fmt.Sprint(i)
		g.nodes[i%3].write(text)
		reader := g.nodes[(i+1)%3]
		if err := reader.ReadIndex(t.Context()); err != nil {
			t.Fatalf("ReadIndex on %s: %v", reader.cfg.Name, err)
		}
		if w := reader.machine.writes(); w[len(w)-1] != text {
			t.Fatalf("%s read %q after %q had been acknowledged", reader.cfg.Name, w[len(w)-1], text)
		}
	}
	index, err := g.others(leader)[0].Confirmed(t.Context())
	if err != nil || index < leader.machine.Applied() {
		t.Errorf("Confirmed on a follower is %d, %v; the leader has applied %d", index, err, leader.machine.Applied())
	}
}

func TestRefreshIsServedFreshEnough(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	n := g.follower()
	for _, most := range []time.Duration{time.Second, 250 * time.Millisecond, 60 * time.Millisecond} {
		// On a busy machine an answer may be older by the time it is there.
		eventually(t, fmt.Sprintf("a state no older than %s", most), func() bool { return n.Refresh(t.Context(), most) == nil })
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	type opened struct{ node, term int }
	sessions := make(chan opened, 16)
	closed := make(chan opened, 16)
	g := newGroup(t, 3)
	for i, n := range g.nodes {
		n.setUp = func(c *cluster.Node) {
			c.OnSession(func(ctx context.Context, term uint64) {
				sessions <- opened{i, int(term)}
				<-ctx.Done()
				closed <- opened{i, int(term)}
			})
		}
	}
	g.start()
	old := g.leader()
	first := <-sessions
	term, ctx, ok := old.Session()
	if !ok || int(term) != first.term || g.nodes[first.node] != old {
		t.Fatalf("the session is %d, %v; the callback said %+v", term, ok, first)
	}
	if out := old.ProposeAs(t.Context(), term, [][]byte{[]byte("wmine")}); out[0].Err != nil {
		t.Errorf("ProposeAs in the session: %v", out[0].Err)
	}
	if out := old.ProposeAs(t.Context(), term+1, [][]byte{[]byte("wwrong")}); !errors.Is(out[0].Err, muster.CodeNoLeader) {
		t.Errorf("ProposeAs for another term: %v, want no_leader", out[0].Err)
	}
	to := g.others(old)[0]
	if err := to.TransferLeadership(t.Context(), to.ID()); err != nil {
		t.Fatalf("TransferLeadership: %v", err)
	}
	<-ctx.Done()
	if got := <-closed; got != first {
		t.Errorf("the callback of %+v ended, want %+v", got, first)
	}
	if g.leader() != to {
		t.Errorf("leadership did not go where it was sent")
	}
	if next := <-sessions; g.nodes[next.node] != to || next.term <= first.term {
		t.Errorf("the next session is %+v after %+v", next, first)
	}
	if out := old.ProposeAs(t.Context(), term, [][]byte{[]byte("wlate")}); !errors.Is(out[0].Err, muster.CodeNoLeader) {
		t.Errorf("ProposeAs after the session: %v, want no_leader", out[0].Err)
	}
	for _, w := range g.converge() {
		if w == "wrong" || w == "late" {
			t.Errorf("%q was applied", w)
		}
	}
}
