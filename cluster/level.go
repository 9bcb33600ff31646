package cluster

import (
	"context"
	"time"

	"github.com/muster-registry/muster/cluster/peer"
)

// raiseLevel raises the cluster's feature level to what every member knows, learners
// included, each asked in this session and heard from just now. One that is started on
// an older version between its answer and the entry is then too old, and told so.
func (r *reconciler) raiseLevel(ctx context.Context) {
	n := r.n
	now := time.Now()
	level := n.fsm.KnownLevel()
	for _, s := range n.servers() {
		id := string(s.ID)
		if id == n.id {
			continue
		}
		c := r.contacts[id]
		if c == nil || now.Sub(c.lastOK) >= liveFor {
			return
		}
		level = min(level, c.status.level)
	}
	before := n.fsm.FeatureLevel()
	if level <= before {
		return
	}
	if err := n.decide(ctx, r.term, [][]byte{n.fsm.LevelOp(r.term, level)}); err != nil {
		n.logger.Debug("feature level not raised", "feature_level", level, "err", err)
		return
	}
	n.logger.Info("feature level raised: all nodes know it, none may be of an older version from now on", "feature_level", level, "before", before, "term", r.term)
}

// level is the cluster's feature level: as applied, or as written down before this
// start, where the log that says so is not applied yet.
func (n *Node) level() uint64 { return max(n.fsm.FeatureLevel(), n.dir.identity().Level) }

// keepLevel writes the cluster's feature level down when it has risen, and lets go of
// nodes that do not know it.
func (n *Node) keepLevel() {
	level := n.fsm.FeatureLevel()
	if level <= 1 || level <= n.dir.identity().Level {
		return
	}
	if err := n.dir.setLevel(level); err != nil {
		n.fail(exitErrorf(exitIO, "writing to the data directory: %w", err))
		return
	}
	// Who is too old now dials again, and is then told so.
	n.port.CloseConns(func(remote peer.Hello, _ peer.Kind) bool { return max(remote.Level, 1) < level })
}
