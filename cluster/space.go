package cluster

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/muster-registry/muster"
)

const (
	spaceEvery = time.Second
	// defaultMinFree is the share of the file system that is kept free, in percent.
	defaultMinFree = 10
	// enoughFree is enough on a file system of any size: several times what the log
	// and the snapshots of the largest registry take.
	enoughFree = 4 << 30
	diskRetry  = 5 * time.Second
)

// space watches how much room the file system of the data directory has. A node
// that has little left writes no more than it has to: it hands leadership to one that
// has more, and where there is none it refuses what it is asked to write, so that the
// log never meets the end of the disk, which would end the node.
type space struct {
	floor func(total uint64) uint64
	probe func(dir string) (free, total uint64, err error)

	free  atomic.Uint64 // bytes, as last seen
	total atomic.Uint64
	// low says that there is less than the floor, refusing that the node leads all
	// the same and takes no writes.
	low, refusing atomic.Bool
	retryAt       atomic.Int64 // unix nanoseconds: when leadership is offered again
}

func newSpace(percent int, f *Faults) *space {
	s := &space{probe: statfs, floor: func(total uint64) uint64 {
		return min(enoughFree, total/100*uint64(max(0, percent)))
	}}
	if f.Space != nil {
		s.probe = f.Space
	}
	return s
}

// statfs is what the system says an ordinary process may still write.
func statfs(dir string) (free, total uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), uint64(st.Blocks) * uint64(st.Bsize), nil
}

// look asks the system, and reports whether low has changed. What has been low
// stays so until a tenth more than the floor is free.
func (s *space) look(dir string) (changed bool, err error) {
	free, total, err := s.probe(dir)
	if err != nil {
		return false, err
	}
	s.free.Store(free)
	s.total.Store(total)
	floor := s.floor(total)
	if was := s.low.Load(); was {
		floor += floor / 10
	}
	return s.low.Swap(free < floor) != (free < floor), nil
}

// watchSpace looks once a second until ctx ends.
func (n *Node) watchSpace(ctx context.Context) {
	var warned error
	for {
		changed, err := n.space.look(n.dir.path)
		if err != nil && (warned == nil || warned.Error() != err.Error()) {
			n.logger.Warn("the free space of the data directory is not known", "dir", n.dir.path, "err", err)
		}
		warned = err
		free, total := n.space.free.Load(), n.space.total.Load()
		switch low := n.space.low.Load(); {
		case changed && low:
			n.logger.Warn("the disk is nearly full: this node gives up leadership and refuses writes", "dir", n.dir.path, "free_bytes", free, "total_bytes", total)
		case changed:
			n.logger.Info("the disk has room again", "dir", n.dir.path, "free_bytes", free, "total_bytes", total)
		}
		n.yieldForSpace(ctx)
		if !sleep(ctx, spaceEvery) {
			return
		}
	}
}

// yieldForSpace hands leadership over where the disk is low. Until that has failed
// writes wait for the next leader; then they are refused.
func (n *Node) yieldForSpace(ctx context.Context) {
	if !n.space.low.Load() || n.session.Load() == nil {
		n.space.refusing.Store(false)
		return
	}
	if wait := n.space.retryAt.Load(); n.space.refusing.Load() && time.Now().UnixNano() < wait {
		return
	}
	err := n.handOver(ctx, "")
	if err != nil && n.session.Load() != nil {
		if !n.space.refusing.Swap(true) && !errors.Is(err, errNoSuccessor) {
			n.logger.Warn("leadership was not handed over", "err", err)
		}
		n.space.retryAt.Store(time.Now().Add(diskRetry).UnixNano())
	}
}

// full reports whether this node leads and must not write.
func (n *Node) full() bool { return n.space.refusing.Load() && n.session.Load() != nil }

// diskFull is the error of a write that would not leave enough free.
func (n *Node) diskFull() error {
	return muster.Errorf(muster.CodeDiskFull, "the disk of the leader is nearly full: nothing was written").
		WithHint("make room on the file system of its --data-dir; writes go on by themselves then").
		WithRetryAfter(jitter(diskRetry))
}
