package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster"
)

func TestCallsOfOtherRooms(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, func(n *node) {
		n.setUp = func(c *cluster.Node) {
			c.Handle("echo", func(_ context.Context, from string, body []byte) ([]byte, error) {
				if len(body) == 0 {
					return nil, muster.Errorf(muster.CodeUnknownLease, "nothing to say").WithHint("say something")
				}
				return append([]byte(from+" said "), body...), nil
			})
		}
	}).start()
	leader := g.leader()
	for _, to := range g.nodes { // itself included
		got, err := leader.Call(t.Context(), to.ID(), "echo", []byte("hello"))
		if want := leader.ID() + " said hello"; err != nil || string(got) != want {
			t.Errorf("Call answered %q, %v, want %q", got, err, want)
		}
	}
	other := g.others(leader)[0]
	_, err := leader.Call(t.Context(), other.ID(), "echo", nil)
	if e, ok := errors.AsType[*muster.Error](err); !ok || e.Code != muster.CodeUnknownLease || e.Hint != "say something" {
		t.Errorf("the error of a handler arrived as %v", err)
	}
	if _, err := leader.Call(t.Context(), "nobody", "echo", nil); !errors.Is(err, muster.CodeUnknownMember) {
		t.Errorf("calling nobody: %v, want unknown_member", err)
	}
	other.kill()
	eventually(t, "no_leader for what was not sent", func() bool {
		_, err := leader.Call(t.Context(), other.ID(), "echo", []byte("hello"))
		return errors.Is(err, muster.CodeNoLeader)
	})
}

func TestPacketsOfOtherRooms(t *testing.T) {
	t.Parallel()
	type packet struct {
		from string
		body []byte
	}
	got := make(chan packet, 100)
	g := newGroup(t, 3)
	g.nodes[2].setUp = func(c *cluster.Node) {
		c.OnGossip(7, func(from string, body []byte) {
			select {
			case got <- packet{from, body}:
			default:
			}
		})
	}
	g.start()
	g.leader()
	body := bytes.Repeat([]byte("x"), 1200)
	eventually(t, "a packet", func() bool {
		g.nodes[1].SendGossip(8, g.nodes[2].ID(), []byte("of another kind"))
		g.nodes[1].SendGossip(7, "nobody", []byte("for nobody"))
		g.nodes[1].SendGossip(7, g.nodes[2].ID(), append(body, 'y')) // too large
		g.nodes[1].SendGossip(7, g.nodes[2].ID(), body)
		return len(got) > 0
	})
	if p := <-got; p.from != g.nodes[1].ID() || !bytes.Equal(p.body, body) {
		t.Errorf("the packet is %d bytes from %s", len(p.body), p.from)
	}
}

func TestMajorityOfAnotherRoomCounts(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3).start()
	leader := g.leader()
	term, _, _ := leader.Session()
	started := time.Now().Add(time.Hour)
	leader.NoteMajority(term+1, started)
	if stale, _ := leader.Freshness(); stale == 0 {
		t.Error("a round of another term counted")
	}
	leader.NoteMajority(term, started)
	if stale, ready := leader.Freshness(); stale != 0 || !ready {
		t.Errorf("after a round the age is %s, ready %v", stale, ready)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1).start()
	n := g.leader()
	n.write("one")
	if err := n.ReadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "muster_cluster_") {
			m := f.GetMetric()[0]
			values[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for _, name := range []string{
		"leading", "leader_known", "term", "commit_index", "applied_index", "voters", "voters_alive", "members_alive",
		"leader_changes_total", "commit_seconds", "entry_operations", "confirm_rounds_total",
	} {
		if values["muster_cluster_"+name] <= 0 {
			t.Errorf("%s is %v in %v", name, values["muster_cluster_"+name], slices.Sorted(maps.Keys(values)))
		}
	}
	n.stop()
	n.start() // the same registry has room for the next
	g.leader()
}
