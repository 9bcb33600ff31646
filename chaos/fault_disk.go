package chaos

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/logstore"
)

// slowDisk makes each write to the log slow, of the leader, of a follower or of all.
func slowDisk(f *injection) error {
	leader, others, err := f.leader()
	if err != nil {
		return err
	}
	victims := [][]*Node{{leader}, {others[0]}, f.c.Nodes()}[f.rng.IntN(3)]
	f.on(victims...)
	order := fmt.Sprintf("delay %dms", 20+f.rng.IntN(180))
	f.note("%s", order)
	var errs []error
	for _, n := range victims {
		errs = append(errs, n.Disk(order))
	}
	return errors.Join(errs...)
}

// stuckDisk lets a write of a node's log hang for longer than it is waited for: the
// node has to end, since the write may come about later.
func stuckDisk(f *injection) error {
	return f.diskEnds("hang", logstore.ExitIO)
}

// failedDisk lets a write of a node's log fail: the node has to end at once.
func failedDisk(f *injection) error {
	return f.diskEnds("fail", logstore.ExitIO)
}

func (f *injection) diskEnds(order string, code int) error {
	n, err := f.pick(f.rng.IntN(2) == 0)
	if err != nil {
		return err
	}
	f.on(n)
	n.mayEnd(code)
	if err := n.Disk(order); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(f.ctx, 20*time.Second)
	defer cancel()
	if got, err := n.exit(ctx); err != nil || got != code {
		return broken("a node whose disk does %q ended with code %d, want %d (%v)", order, got, code, err)
	}
	return f.wait(0, 3)
}

// fullDisk fills the small disk but for a little, after its node was made leader in
// half of the cases.
func fullDisk(f *injection) error {
	n := f.c.Nodes()[f.c.cfg.Nodes-1]
	f.on(n)
	if f.rng.IntN(2) == 0 {
		if id, err := f.c.id(f.ctx, n); err == nil {
			err = f.c.call(f.ctx, "POST", n.URL+"/v1/cluster/leader", fmt.Sprintf(`{"to":%q}`, id), nil)
			f.note("leader first (%v)", err)
		}
	}
	return n.fill(4 << 20)
}

// flippedByte damages an entry in the log of a node that is down. It must end with the
// code for that, naming the entry, as often as it is started; repaired, it is a new member.
func flippedByte(f *injection) error {
	_, others, err := f.leader()
	if err != nil {
		return err
	}
	n := others[0]
	f.on(n)
	s := f.c.status(f.ctx, n)
	if s == nil {
		return fmt.Errorf("%s does not answer", n.Name)
	}
	n.Kill()
	index, err := f.flip(n, s)
	if err != nil {
		return err
	}
	f.note("entry %d", index)
	from := n.size()
	if err := n.Start(); err != nil {
		return err
	}
	n.mayEnd(logstore.ExitCorrupt)
	ctx, cancel := context.WithTimeout(f.ctx, 30*time.Second)
	defer cancel()
	if code, err := n.exit(ctx); err != nil || code != logstore.ExitCorrupt {
		return broken("%s with a flipped byte at entry %d ended with code %d, want %d (%v)", n.Name, index, code, logstore.ExitCorrupt, err)
	}
	if said := n.said(from); !strings.Contains(said, fmt.Sprint(index)) {
		return broken("%s with a flipped byte does not name entry %d:\n%s", n.Name, index, tail(said, 5))
	}
	if _, err := n.muster(f.ctx, "repair", "--yes", "--data-dir", n.dataDir()); err != nil {
		return broken("%v", err)
	}
	return nil
}

// flip damages the latest entry that it finds in the log of a node.
func (f *injection) flip(n *Node, s *muster.Cluster) (index uint64, err error) {
	err = n.host.do(func() error {
		var err error
		for index = s.CommitIndex & (1<<muster.EpochShift - 1); index > 1; index-- {
			if err = logstore.FlipByte(filepath.Join(n.dataDir(), "raft.db"), index); err == nil {
				return nil
			}
			if s.CommitIndex-index > 1000 {
				break
			}
		}
		return fmt.Errorf("flipping a byte: %w", err)
	})
	return index, err
}

// wiped has a node come back without anything of what it had.
func wiped(f *injection) error {
	n, err := f.pick(f.rng.IntN(3) == 0)
	if err != nil {
		return err
	}
	f.on(n)
	n.Kill()
	if err := f.wait(0, 2); err != nil {
		return err
	}
	return n.Wipe()
}
