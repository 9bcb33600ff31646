package health_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/health"
)

// scenario runs in virtual time with three nodes.
func scenario(t *testing.T, run func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { run(t, newRig(t, 3, nil)) })
}

// words drops the times of a transcript.
func words(transcript string) string {
	var out []string
	for line := range strings.SplitSeq(transcript, "\n") {
		_, rest, _ := strings.Cut(line, " ")
		out = append(out, rest)
	}
	return strings.Join(out, "\n")
}

func (r *rig) expect(want string) {
	r.t.Helper()
	if got := words(r.transcript()); got != want {
		r.t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func (r *rig) owners(i *muster.Instance) (mine []*rigNode, rest []*rigNode) {
	var ids []string
	for _, n := range r.nodes {
		ids = append(ids, n.id)
	}
	owners := health.Owners(ids, keyOf(i), 0)
	for _, n := range r.nodes {
		if slices.Contains(owners, n.id) {
			mine = append(mine, n)
		} else {
			rest = append(rest, n)
		}
	}
	return mine, rest
}

// TestStateDiagram walks through the states: unknown, up, one and two failures
// that change nothing, three that do, recovery.
func TestStateDiagram(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		i := r.register(needs("w1"))
		if got := r.status(i).Status; got != muster.StatusUnknown {
			t.Errorf("at first: got %s", got)
		}
		time.Sleep(2 * time.Second)
		r.expect("w1 up db:up")

		r.see(nil, "db", true)
		time.Sleep(9 * time.Second) // at most two probes of each node
		r.expect("")
		r.see(nil, "db", false)
		time.Sleep(20 * time.Second)
		r.expect("")

		began := time.Now()
		r.see(nil, "db", true)
		for r.status(i).Status == muster.StatusUp {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(began); took > 15*time.Second+2*time.Second+500*time.Millisecond || took < 9*time.Second {
			t.Errorf("found out after %s; fall × interval + timeout + 500ms is 17.5s", took)
		}
		r.expect("w1 down db:down(dependency)")
		if out := r.status(i).Checks[0].Output; out != "service db has no routable instance" {
			t.Errorf("output: %q", out)
		}

		time.Sleep(20 * time.Second)
		r.expect("")
		r.see(nil, "db", false)
		time.Sleep(5500 * time.Millisecond)
		r.expect("w1 up db:up")
	})
}

// TestFailsFromUnknown: an instance that never passes becomes down after Fall
// failures, not before.
func TestFailsFromUnknown(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		r.see(nil, "db", true)
		r.register(needs("w1"))
		time.Sleep(4500 * time.Millisecond) // at most two probes of each node
		r.expect("")
		time.Sleep(8 * time.Second)
		r.expect("w1 down db:down(dependency)")
	})
}

// TestEvenStart: checks that begin at the same moment are made soon, and are then
// spread over their interval.
func TestEvenStart(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		const count, parts = 1500, 25 // of 200 ms
		for n := range count {
			r.register(needs(fmt.Sprintf("w%d", n)))
		}
		time.Sleep(1500 * time.Millisecond)
		if got := strings.Count(r.transcript(), " up "); got != count {
			t.Errorf("%d of %d are up after a second and a half", got, count)
		}
		time.Sleep(8500 * time.Millisecond)
		probes := func() (n float64) {
			for _, node := range r.nodes {
				n += node.metric("muster_health_probes_total", "")
			}
			return n
		}
		last := probes()
		for part := range parts {
			time.Sleep(200 * time.Millisecond)
			now := probes()
			if got, mean := now-last, 2*count/float64(parts); got < mean*0.6 || got > mean*1.5 {
				t.Errorf("part %d: %v probes, the mean is %v", part, got, mean)
			}
			last = now
		}
	})
}

// TestSecondOpinion: a node that alone sees an instance failing evicts nobody; the
// disagreement is shown and counted, and ends.
func TestSecondOpinion(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		i := r.register(needs("w1"))
		time.Sleep(2 * time.Second)
		r.expect("w1 up db:up")
		mine, rest := r.owners(i)
		r.see(rest[0], "db", true) // who is not asked
		r.see(mine[0], "db", true)
		time.Sleep(time.Minute)
		r.expect("w1 up db:contested=true")
		if n := r.nodes[0].metric("muster_health_contests_total", ""); n != 1 {
			t.Errorf("contests counted: %v", n)
		}
		r.see(mine[0], "db", false)
		time.Sleep(10 * time.Second)
		r.expect("w1 up db:contested=false")
		r.see(mine[0], "db", true)
		r.see(mine[1], "db", true)
		time.Sleep(20 * time.Second)
		r.expect("w1 down db:down(dependency)")
	})
}

// TestUnknownContested: one node's success is enough to come up.
func TestUnknownContested(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		i := needs("w1")
		if err := i.Normalize(); err == nil {
			t.Fatal("an instance without service normalizes")
		}
		i.Service, i.Namespace = "web", "default"
		mine, _ := r.owners(&i)
		r.see(mine[1], "db", true)
		r.register(needs("w1"))
		time.Sleep(2 * time.Second)
		r.expect("w1 up db:up")
	})
}

// TestKilledProber: a node that dies changes nothing, its checks move, and what
// fails later is found out by those that are left.
func TestKilledProber(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		var all []*muster.Instance
		for n := range 30 {
			all = append(all, r.register(needs(fmt.Sprintf("w%d", n))))
		}
		time.Sleep(2 * time.Second)
		r.transcript()
		r.nodes[2].kill()
		time.Sleep(time.Minute)
		r.expect("")
		for _, n := range r.nodes[:2] {
			if got := n.metric("muster_health_owned_checks", ""); got != 30 {
				t.Errorf("%s owns %v of 30 checks", n.id, got)
			}
		}
		r.see(nil, "db", true)
		time.Sleep(20 * time.Second)
		for _, i := range all {
			if s := r.status(i).Status; s != muster.StatusDown {
				t.Errorf("%s is %s", i.ID, s)
			}
		}
		r.transcript()
		r.nodes[2].start(health.NewGuard(health.GuardConfig{}))
		r.nodes[2].sup.Observe(health.Changes{Reset: true})
		time.Sleep(time.Minute)
		r.expect("")
		if got := r.nodes[2].metric("muster_health_owned_checks", ""); got < 10 || got > 30 {
			t.Errorf("the node that came back owns %v checks", got)
		}
	})
}

// TestLastProberAndLeader: with two nodes left it takes both, with one it decides
// alone.
func TestLastProberAndLeader(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		i := r.register(needs("w1"))
		time.Sleep(2 * time.Second)
		r.nodes[2].kill()
		time.Sleep(10 * time.Second)
		r.transcript()
		r.see(r.nodes[1], "db", true)
		time.Sleep(30 * time.Second)
		if got := r.status(i).Status; got != muster.StatusUp {
			t.Errorf("the leader sees it up, and it is %s", got)
		}
		r.nodes[1].kill()
		time.Sleep(10 * time.Second)
		r.transcript()
		r.see(r.nodes[0], "db", true)
		time.Sleep(20 * time.Second)
		r.expect("w1 down db:down(dependency)")
	})
}

// TestLeaderChange: a new leader gathers opinions anew and nothing flaps, whether
// instances are up, down or contested.
func TestLeaderChange(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		for n := range 10 {
			r.register(needs(fmt.Sprintf("w%d", n)))
		}
		down := r.register(muster.Instance{ID: "d1", Checks: []muster.Check{{Name: "q", Type: muster.CheckService, Service: "queue"}}})
		r.see(nil, "queue", true)
		time.Sleep(30 * time.Second)
		if got := r.status(down).Status; got != muster.StatusDown {
			t.Fatalf("d1 is %s", got)
		}
		r.transcript()
		for round := range 4 {
			r.lead(nil)
			time.Sleep(3 * time.Second)
			r.lead(r.nodes[(round+1)%3])
			time.Sleep(7 * time.Second)
		}
		r.expect("")
		r.see(nil, "db", true)
		r.lead(r.nodes[2])
		time.Sleep(18 * time.Second)
		if got := strings.Count(r.transcript(), "down"); got != 20 {
			t.Errorf("%d words of being down, want 20: each instance and its check", got)
		}
	})
}

// TestSilentProber: a node whose reports do not arrive counts no more, and its
// checks move to others, so that a failure is still found out.
func TestSilentProber(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		i := r.register(needs("w1"))
		time.Sleep(2 * time.Second)
		mine, _ := r.owners(i)
		deaf := mine[0]
		if deaf == r.leader {
			deaf = mine[1]
		}
		r.mu.Lock()
		deaf.deaf = true
		r.mu.Unlock()
		time.Sleep(10 * time.Second)
		r.transcript()
		r.see(nil, "db", true)
		time.Sleep(20 * time.Second)
		r.expect("w1 down db:down(dependency)")
		r.mu.Lock()
		deaf.deaf = false
		r.mu.Unlock()
		time.Sleep(20 * time.Second)
		r.expect("")
	})
}

// TestNewLife: what was found out about an instance says nothing of its next life,
// and a decision that was not applied is made again.
func TestNewLife(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		r.see(nil, "db", true)
		i := r.register(needs("w1"))
		time.Sleep(13 * time.Second)
		r.expect("w1 down db:down(dependency)")
		r.register(needs("w1"))
		time.Sleep(4500 * time.Millisecond) // at most two probes of each node
		r.expect("")
		if got := r.status(i).Status; got != muster.StatusUnknown {
			t.Errorf("in its new life it is %s", got)
		}
		r.see(nil, "db", false)
		r.mu.Lock()
		r.refuse = true
		r.mu.Unlock()
		time.Sleep(8 * time.Second)
		r.expect("")
		r.mu.Lock()
		r.refuse = false
		r.mu.Unlock()
		time.Sleep(time.Second)
		r.expect("w1 up db:up")
		r.deregister(i)
		time.Sleep(10 * time.Second)
		r.expect("")
		for _, n := range r.nodes {
			if got := n.metric("muster_health_owned_checks", ""); got != 0 {
				t.Errorf("%s still owns %v checks", n.id, got)
			}
		}
	})
}

// TestLateReport: a report about an earlier life that was long on its way says
// nothing of the present one.
func TestLateReport(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		inst := needs("w0")
		inst.Namespace, inst.Service = "default", "web"
		for n := 1; slices.Contains(health.Owners([]string{"n1", "n2", "n3"}, keyOf(&inst), 0), "n1"); n++ {
			inst.ID = fmt.Sprintf("w%d", n)
		}
		i := r.register(needs(inst.ID))
		time.Sleep(2 * time.Second)
		r.see(nil, "db", true)
		time.Sleep(9 * time.Second)
		deaf := func(is bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.nodes[1].deaf, r.nodes[2].deaf = is, is
		}
		deaf(true) // just before they turn
		for r.nodes[1].metric("muster_health_probes_total", "dependency") < 3 || r.nodes[2].metric("muster_health_probes_total", "dependency") < 3 {
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		r.transcript()
		r.register(needs(inst.ID))
		deaf(false)
		late := 0
		for _, n := range r.nodes[1:] {
			r.mu.Lock()
			lost := n.lost
			r.mu.Unlock()
			for _, body := range lost {
				if strings.Contains(string(body), "no routable instance") {
					late++
				}
				if _, err := r.nodes[0].handlers["health/report"](t.Context(), n.id, body); err != nil {
					t.Fatal(err)
				}
			}
		}
		if late == 0 {
			t.Fatal("no report was lost")
		}
		time.Sleep(time.Second)
		if got := r.status(i).Status; got != muster.StatusUnknown {
			t.Errorf("the new life is %s\n%s", got, r.transcript())
		}
	})
}

// TestOpinionsReachANewLeader: what one of the owners held before the leader
// changed counts when the other comes to hold it afterwards.
func TestOpinionsReachANewLeader(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		i := r.register(needs("w1"))
		time.Sleep(2 * time.Second)
		mine, _ := r.owners(i)
		r.see(mine[0], "db", true)
		time.Sleep(16 * time.Second)
		r.expect("w1 up db:up")
		r.lead(r.nodes[1])
		time.Sleep(2 * time.Second)
		r.see(mine[1], "db", true)
		time.Sleep(16 * time.Second)
		if got := r.status(i).Status; got != muster.StatusDown {
			t.Errorf("both see it failing, and it is %s\n%s", got, r.transcript())
		}
	})
}

// TestWorstCounts: of several checks the worst counts, each has its own state.
func TestWorstCounts(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		r.register(muster.Instance{ID: "w1", Checks: []muster.Check{
			{Name: "db", Type: muster.CheckService, Service: "db"},
			{Name: "q", Type: muster.CheckService, Service: "queue", Fall: 1, Rise: 2},
		}})
		time.Sleep(7 * time.Second)
		got := words(r.transcript())
		if got != "w1 unknown db:up\nw1 up q:up" && got != "w1 unknown q:up\nw1 up db:up" {
			t.Errorf("got\n%s", got)
		}
		r.see(nil, "queue", true)
		time.Sleep(6 * time.Second)
		r.expect("w1 down q:down(dependency)")
		r.see(nil, "queue", false)
		time.Sleep(11 * time.Second)
		r.expect("w1 up q:up")
	})
}

// TestFlapping: an instance that changes more than six times in ten minutes is
// held out, until a time that is shown, also across a change of leader; then it
// comes back by itself.
func TestFlapping(t *testing.T) {
	scenario(t, func(t *testing.T, r *rig) {
		i := r.register(needs("w1"))
		time.Sleep(2 * time.Second)
		r.transcript()
		for n := range 7 {
			if until := r.status(i).HeldUntil; !until.IsZero() {
				t.Fatalf("held after %d changes", n)
			}
			r.see(nil, "db", n%2 == 0)
			time.Sleep(20 * time.Second)
		}
		held := r.status(i)
		left := time.Until(held.HeldUntil)
		if left < time.Minute || left > 10*time.Minute || held.Status != muster.StatusDown {
			t.Fatalf("after seven changes: %s, held for %s more\n%s", held.Status, left, r.transcript())
		}
		r.see(nil, "db", false)
		time.Sleep(10 * time.Second)
		if now := r.status(i); now.Checks[0].Status != muster.StatusUp || now.Status != muster.StatusDown {
			t.Errorf("while it is held its check is %s and it is %s", now.Checks[0].Status, now.Status)
		}
		r.lead(r.nodes[1])
		time.Sleep(time.Second)
		until := r.status(i).HeldUntil
		if until.Before(held.HeldUntil) {
			t.Errorf("another change and another leader brought the release forward: %s, then %s", held.HeldUntil, until)
		}
		r.transcript()
		time.Sleep(time.Until(until) - 100*time.Millisecond)
		r.expect("")
		time.Sleep(time.Second)
		r.expect("w1 up held=false")
	})
}
