package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// replace removes a member, whose process then has nothing to do any more, and has a
// new node take its place.
func replace(f *injection) error {
	leader, others, err := f.leader()
	if err != nil {
		return err
	}
	n := others[0]
	f.on(n)
	if err := f.remove(leader, n); err != nil {
		return err
	}
	return n.Wipe()
}

// remove takes a member out of the cluster, by way of another, and ends its process.
func (f *injection) remove(by, n *Node) error {
	id, err := f.c.id(f.ctx, n)
	if err != nil {
		return err
	}
	n.mayEnd(0, 78) // removed: the cluster refuses it from now on
	ctx, cancel := context.WithTimeout(f.ctx, 20*time.Second)
	defer cancel()
	err = f.c.wait(ctx, "the removal of "+n.Name, func() error {
		err := f.c.call(ctx, http.MethodDelete, by.URL+"/v1/cluster/members/"+id, "", nil)
		if err != nil && strings.Contains(err.Error(), "unknown_member") {
			return nil // an attempt whose answer was lost
		}
		return err
	})
	if err != nil {
		return broken("%v", err)
	}
	n.Kill()
	return nil
}

// grow has nodes join until there are as many as there are places, kills the leader
// of all those, and has the newcomers leave again.
func grow(f *injection) error {
	spares := f.c.Spares()
	if len(spares) == 0 {
		return errors.New("no spare nodes")
	}
	f.on(spares...)
	for _, n := range spares {
		if err := n.Wipe(); err != nil {
			return err
		}
		if err := n.Start(); err != nil {
			return err
		}
	}
	all := f.c.cfg.Nodes + len(spares)
	ctx, cancel := context.WithTimeout(f.ctx, 45*time.Second)
	defer cancel()
	if _, err := f.c.WaitWhole(ctx, all); err != nil {
		return broken("growing to %d nodes: %v", all, err)
	}
	leader, err := f.c.Leader(ctx)
	if err != nil {
		return broken("%v", err)
	}
	f.on(leader)
	f.note("killed %s of %d", leader.Name, all)
	f.shock()
	leader.Kill()
	if err := f.wait(0.5, 2); err != nil {
		return err
	}
	if err := leader.Start(); err != nil {
		return err
	}
	if _, err := f.c.WaitWhole(ctx, all); err != nil {
		return broken("after the leader of %d nodes was killed: %v", all, err)
	}
	for _, n := range spares {
		if err := f.remove(f.c.Nodes()[0], n); err != nil {
			return err
		}
	}
	return nil
}

// snapshotInstall cuts a follower off until the log that the leader keeps begins after
// the end of the follower's, so that it needs a snapshot.
func snapshotInstall(f *injection) error {
	leader, others, err := f.leader()
	if err != nil {
		return err
	}
	n := others[0]
	f.on(n)
	from, said := n.size(), leader.size()
	term, begin := f.c.Term(f.ctx)
	if err := f.isolate(n, both); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(f.ctx, 40*time.Second)
	defer cancel()
	err = f.c.wait(ctx, "enough entries and snapshots", func() error {
		_, at := f.c.Term(ctx)
		if taken := strings.Count(leader.said(said), snapshotTaken); at < begin+installAfter || taken < installTaken {
			return fmt.Errorf("%d of %d entries, %d of %d snapshots", at-begin, installAfter, taken, installTaken)
		}
		return nil
	})
	if err != nil {
		f.note("%v", err)
		return nil
	}
	if err := f.c.Heal(); err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(f.ctx, 30*time.Second)
	defer cancel()
	err = f.c.wait(ctx, "an installed snapshot", func() error {
		if !strings.Contains(n.said(from), snapshotInstalled) {
			return fmt.Errorf("%s, %d entries behind, was sent none", n.Name, installAfter)
		}
		return nil
	})
	if now, _ := f.c.Term(f.ctx); err != nil && now != term {
		f.note("another leader, whose log reached back far enough")
		return nil
	}
	if err != nil {
		return broken("%v", err)
	}
	return nil
}

// What raft logs where it has taken a snapshot, and where it has installed one.
const (
	snapshotTaken     = "snapshot complete up to"
	snapshotInstalled = "Installed remote snapshot"
)
