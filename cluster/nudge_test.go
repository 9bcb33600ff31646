package cluster_test

import (
	"fmt"
	"testing"
	"time"
)

// TestFollowersAreToldOfCommits: where raft itself would tell the followers only
// after an hour, a nudge does; also by the next leader, to a follower that was away,
// and to one whose disk is slower than the others'.
func TestFollowersAreToldOfCommits(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, func(n *node) { n.faults.CommitTimeout = time.Hour }).start()
	leader := g.leader()
	told := func(what string) {
		t.Helper()
		for k := range 5 {
			leader.write(fmt.Sprint(what, k))
			g.converge()
		}
	}
	told("at rest")
	slow := g.others(leader)[0]
	slow.faults.Log.Delay(30 * time.Millisecond)
	told("one slow")
	slow.faults.Log.Delay(0)
	slow.kill()
	leader.write("while one is away")
	slow.start()
	eventually(t, "the one that was away to follow", func() bool {
		leader.write("after")
		return len(slow.machine.writes()) >= len(leader.machine.writes())-1
	})
	told("back")
	leader.kill()
	rest := g.others(leader)
	leader, killed := g.leader(rest...), leader
	killed.start()
	eventually(t, "the old leader to follow", func() bool {
		leader.write("again")
		return len(killed.machine.writes()) >= len(leader.machine.writes())-1
	})
	told("by the next leader")
}
