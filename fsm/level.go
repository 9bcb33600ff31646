package fsm

import (
	"fmt"

	"github.com/muster-registry/muster"
)

// The feature levels. A level is a set of operations, of their fields, and of what
// snapshots hold: a build of level N knows all of levels 1 to N. The cluster's level
// is part of the state; it is raised by Raise, once all members know the higher one,
// and never falls. Nothing of a level above the cluster's is written: whoever builds
// an operation asks FeatureLevel first, and Pack refuses what came too early.
const (
	baseLevel = 1
	// KnownLevel is the highest level this build knows.
	KnownLevel = newestLevel
)

// Raise raises the cluster's feature level, on the decision of the leader of Term. It
// is dropped where the entry's own term differs.
type Raise struct {
	Term  uint64
	Level uint64
}

// UpgradeError says that this build is older than what it was given to read.
type UpgradeError struct{ What string }

// Error says what to do about it.
func (e *UpgradeError) Error() string {
	return fmt.Sprintf("%s is not known to this version, whose feature level is %d: upgrade this node", e.What, KnownLevel)
}

// ExitCode is that of a node that cannot be used as it is.
func (e *UpgradeError) ExitCode() int { return 78 }

func levelError(level uint64) error {
	return &UpgradeError{fmt.Sprintf("feature level %d", level)}
}

// levelOf is the level that an operation belongs to.
func levelOf(k kind) uint64 {
	if k == kindNewest {
		return newestLevel
	}
	return baseLevel
}

// tooEarly says why an operation may not be written yet; nil: it may.
func tooEarly(k kind, cluster uint64) error {
	if need := levelOf(k); need > cluster {
		return fmt.Errorf("operation of kind %d belongs to feature level %d, and the cluster is at %d until all its nodes are upgraded", k, need, cluster)
	}
	return nil
}

func (o *Raise) apply(s *state, at step) result {
	r := result{index: at.index}
	switch {
	case o.Term != at.term:
		r.dropped = true
	case o.Level > s.level:
		s.level, r.changed = o.Level, true
	}
	return r
}

// FeatureLevel is the cluster's level, as of the last batch.
func (f *FSM) FeatureLevel() uint64 { return f.level.Load() }

// KnownLevel is the highest level this build knows.
func (f *FSM) KnownLevel() uint64 { return KnownLevel }

// LevelOp returns the operation that raises the cluster's level.
func (f *FSM) LevelOp(term, level uint64) []byte { return Encode(Raise{Term: term, Level: level}) }

// checkLevel refuses a backup of a level that the cluster has not reached.
func (s *state) checkLevel(from *state) *muster.Error {
	if from.level > s.level {
		return muster.Errorf(muster.CodeConflict, "the backup is of feature level %d, and this cluster is at %d", from.level, s.level).
			WithHint("upgrade all nodes first")
	}
	return nil
}
