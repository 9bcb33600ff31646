package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/logstore"
	"github.com/muster-registry/muster/cluster/peer"
)

const (
	loopsTimeout  = 5 * time.Second
	raftTimeout   = 5 * time.Second
	partsTimeout  = 5 * time.Second
	futureTimeout = time.Second
	quietTimeout  = 300 * time.Millisecond
	hungAfter     = 5 * time.Second
	logCache      = 1024
	raftTransport = 2 * time.Second
	raftPool      = 3
)

// errKilled is what Run returns after Kill.
var errKilled = errors.New("cluster: killed")

// lifetimes are the parts of a running node that end one after the other.
type lifetimes struct {
	cancelLoops, cancelStore, cancelPort context.CancelFunc
	portDone                             chan struct{}
	transport                            *peer.Transport
}

// Run is the node's life. It checks the log, starts raft and the gossip, and takes
// part in the cluster until ctx is done; a leader then hands leadership over before
// it goes. It returns nil after that and after Leave, and an error that carries an
// exit code where the node has to end by itself: 65 where what is stored does not
// read back, 74 where the disk does not store, 78 where the cluster does not want
// the node. Run returns when everything the node has started has ended, except what
// is stuck in the disk.
func (n *Node) Run(ctx context.Context) error {
	if n.ran.Swap(true) {
		return errors.New("cluster: a node runs once")
	}
	var l lifetimes
	err := n.start(ctx, &l)
	if err == nil {
		select {
		case <-ctx.Done():
		case <-n.failed:
		}
	}
	if ended := n.stop(ctx, &l); err == nil {
		err = ended
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // stopped while it was still starting
	}
	return err
}

// Kill ends a running node as a crash does: nothing is handed over, nobody is told.
// It is for tests.
func (n *Node) Kill() {
	n.killed.Store(true)
	n.fail(errKilled)
}

// start brings the node up. What it has started when it fails, stop ends.
func (n *Node) start(ctx context.Context, l *lifetimes) error {
	if err := n.verify(ctx); err != nil {
		return err
	}
	n.startup.at(muster.Startup{Stage: "resolving --advertise"})
	err := n.gossip.net.setAdvertise(ctx, n.cfg.Addrs.Advertise, func(err error) {
		n.logger.Warn("the host of --advertise does not resolve yet, trying on", "addr", n.cfg.Addrs.Advertise, "err", err)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return exitErrorf(exitConfig, "the gossip address: %w", err)
	}
	inner := context.WithoutCancel(ctx) // the node outlives ctx by the hand-over
	portCtx, cancelPort := context.WithCancel(inner)
	l.cancelPort, l.portDone = cancelPort, make(chan struct{})
	n.parts.Go(func() {
		defer close(l.portDone)
		if err := n.port.Run(portCtx); err != nil {
			n.fail(fmt.Errorf("the peer port: %w", err))
		}
	})
	l.transport = peer.NewTransport(n.port, peer.TransportConfig{
		Logger: newRaftLogger(n.logger), Timeout: raftTransport, MaxPool: raftPool, HeartbeatGate: n.heartbeatGate,
		Appended: n.nudges.appended,
	})
	r, err := n.startRaft(l.transport)
	if err != nil {
		return err
	}
	n.raft.Store(r)
	storeCtx, cancelStore := context.WithCancel(inner)
	l.cancelStore = cancelStore
	n.parts.Go(func() {
		if err := n.store.Run(storeCtx); err != nil {
			n.fail(err)
		}
	})
	n.parts.Go(func() {
		if err := l.transport.Run(storeCtx); err != nil {
			n.fail(fmt.Errorf("the raft transport: %w", err))
		}
	})
	if err := n.gossip.start(); err != nil {
		return err
	}
	loops, cancelLoops := context.WithCancel(inner)
	l.cancelLoops = cancelLoops
	n.startLoops(loops, r, l.transport)
	return nil
}

// verify reads the whole log before raft does.
func (n *Node) verify(ctx context.Context) error {
	err := n.store.Verify(ctx, func(done, total uint64) {
		n.startup.at(muster.Startup{Stage: "checking the log", Done: done, Total: total, Unit: "entries"})
	})
	if err != nil {
		return fmt.Errorf("checking the log: %w", err)
	}
	return nil
}

// heartbeatGate keeps a leader whose disk hangs from looking alive: the followers
// then elect another.
func (n *Node) heartbeatGate() error {
	if hung := n.store.Hung(); hung > hungAfter {
		return fmt.Errorf("a write has hung for %s", hung)
	}
	return nil
}

// startRaft starts raft from the newest snapshot that can be read and that the log
// goes on from.
func (n *Node) startRaft(transport *peer.Transport) (r *raft.Raft, err error) {
	remedy := "the state cannot be rebuilt here: wipe the data directory " + n.dir.path + " and let the node join anew"
	defer func() {
		if p := recover(); p != nil { // raft panics where the log has a gap
			err = exitErrorf(exitCorrupt, "%s (%v)", remedy, p)
		}
	}()
	list, err := n.snaps.List()
	if err != nil {
		return nil, exitErrorf(exitIO, "listing the snapshots: %w", err)
	}
	if len(list) == 0 {
		if err := n.store.Reaches(0); err != nil {
			return nil, exitErrorf(exitCorrupt, "there is no snapshot that reads back, and %s: %w", remedy, err)
		}
	}
	if last, err := n.store.LastIndex(); err == nil {
		n.startup.last.Store(last)
	}
	n.startup.at(muster.Startup{Stage: "starting raft"})
	cache, err := raft.NewLogCache(logCache, n.store)
	if err != nil {
		return nil, fmt.Errorf("making the log cache: %w", err)
	}
	snaps := &reachingSnapshots{FileSnapshotStore: n.snaps, store: n.store, startup: &n.startup, failed: n.snapshotFailed}
	r, err = raft.NewRaft(raftConfig(n.id, n.timing, n.logger), tappedFSM{n.fsm, n.nudges, n.fail, n.replaying}, cache, n.store, snaps, transport)
	snaps.started.Store(true)
	if err != nil {
		select {
		case <-n.failed: // the state machine has said what is wrong
			return nil, n.failure.err
		default:
		}
	}
	if err != nil && len(list) > 0 {
		return nil, exitErrorf(exitCorrupt, "%s: %w", remedy, err)
	}
	if err != nil {
		return nil, fmt.Errorf("starting raft: %w", err)
	}
	return r, nil
}

// snapshotFailed counts and tells. raft tries again, and keeps its log meanwhile.
func (n *Node) snapshotFailed(err error) {
	n.metrics.snapshotFailures.Inc()
	n.logger.Warn("a snapshot was not written, the log grows until one is", "node", n.id, "err", err)
}

func (n *Node) startLoops(ctx context.Context, r *raft.Raft, transport *peer.Transport) {
	n.callbacks = append([]*callback{{fn: n.reconcileMembers}}, n.callbacks...)
	for _, loop := range []func(context.Context){
		n.dispatch, n.readIndexes.run, n.freshAsks.run, n.strictAsks.run, n.keepFresh, n.gossip.deliver,
		n.keepJoined, n.bootstrap, n.watchGossip, n.watchSelf, n.watchSpace,
	} {
		n.loops.Go(func() { loop(ctx) })
	}
	n.loops.Go(func() { n.watchLeadership(ctx, r.LeaderCh()) })
	n.loops.Go(func() { n.watchLeader(ctx, r) })
	n.loops.Go(func() { n.nudges.run(ctx, transport) })
	if !n.cfg.Timing.SlowFailover {
		n.loops.Go(func() { n.watchLife(ctx, transport.Inject) })
	}
}

// stop ends the node: leadership first, so that the cluster goes on without a gap,
// then the gossip, so that peers stop looking, then what works on raft, raft itself,
// the connections, and last the files. After a crash the connections go first.
func (n *Node) stop(ctx context.Context, l *lifetimes) error {
	n.stops.Store(true)
	inner := context.WithoutCancel(ctx)
	var failed error
	select {
	case <-n.failed:
		failed = n.failure.err
	default:
	}
	if failed == nil && n.session.Load() != nil && len(n.voters()) > 1 {
		if err := n.handOver(inner, ""); err != nil {
			n.logger.Warn("stopping without having handed leadership over", "err", err)
		}
	}
	killed := n.killed.Load()
	if killed {
		close(n.ended)
		if l.cancelPort != nil {
			l.cancelPort()
			select {
			case <-l.portDone:
			case <-time.NewTimer(partsTimeout).C:
			}
		}
	}
	n.gossip.stop(killed)
	if l.cancelLoops != nil {
		l.cancelLoops()
	}
	if !killed {
		close(n.ended)
	}
	if !waitGroup(&n.loops, loopsTimeout) {
		n.logger.Error("parts of the node did not end in time")
	}
	n.stopRaft(inner, l, failed)
	for _, cancel := range []context.CancelFunc{l.cancelStore, l.cancelPort} {
		if cancel != nil {
			cancel()
		}
	}
	if !waitGroup(&n.parts, partsTimeout) {
		n.logger.Error("connections did not end in time")
	}
	waitGroup(&n.futures, futureTimeout)
	err := n.release()
	if failed != nil {
		if !killed {
			n.logger.Error("the node ends", "err", failed)
		}
		return failed
	}
	if err != nil {
		return fmt.Errorf("closing the node: %w", err)
	}
	return nil
}

// stopRaft shuts raft down. Where the disk is the trouble it closes the log first,
// because raft may be waiting inside.
func (n *Node) stopRaft(ctx context.Context, l *lifetimes, failed error) {
	r := n.raft.Load()
	if r == nil {
		if l.transport != nil {
			l.transport.Close()
		}
		return
	}
	n.awaitQuiet(ctx, r)
	if _, disk := errors.AsType[*logstore.ExitError](failed); disk {
		n.store.Close()
	}
	done := make(chan error, 1)
	n.futures.Go(func() { done <- r.Shutdown().Error() })
	timer := time.NewTimer(raftTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			n.logger.Warn("raft did not stop cleanly", "err", err)
		}
	case <-timer.C:
		n.logger.Error("raft did not stop in time")
	}
}

// awaitQuiet lets the entries under way be answered, and the state machine finish
// what it was given: whoever waits for what is in its queue when raft is shut down
// is never told anything.
func (n *Node) awaitQuiet(ctx context.Context, r *raft.Raft) {
	ctx, cancel := context.WithTimeout(ctx, quietTimeout)
	defer cancel()
	for n.local.Load() > 0 && sleep(ctx, time.Millisecond) {
	}
	for {
		given := r.AppliedIndex()
		// The last may be of raft's own kind, which the state machine never sees.
		if n.fsm.WaitApplied(ctx, given) != nil || r.AppliedIndex() == given {
			return
		}
	}
}

// waitGroup waits for g, but not longer than d.
func waitGroup(g *sync.WaitGroup, d time.Duration) bool {
	done := make(chan struct{})
	go func() {
		g.Wait()
		close(done)
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
