package fsm

import (
	"time"

	"github.com/muster-registry/muster"
)

// Op is one operation on the state. The operations are the structs of this
// package that are passed by value to Encode.
type Op interface {
	kind() kind
	append(b []byte) []byte
}

// Register adds an instance or replaces it: an upsert by namespace, service and
// id. Instance is normalized; its registry-owned fields are not looked at, the
// lease id excepted.
type Register struct {
	Instance *muster.Instance
	Cond     muster.Condition
	Caller   muster.Caller
}

// Deregister takes an instance away on purpose. Incarnation fences it where it
// is not 0.
type Deregister struct {
	Key         muster.InstanceKey
	Incarnation uint64
	Cond        muster.Condition
	Caller      muster.Caller
}

// LeaseGen names a lease as whoever decides about it has seen it: the decision
// does not hold once the generation has moved.
type LeaseGen struct {
	ID         muster.LeaseID
	Generation uint64
}

// Expire ends leases, on the decision of the leader of Term. It is dropped as a
// whole where the entry's own term differs. The result says what became of each
// lease.
type Expire struct {
	Term   uint64
	Leases []LeaseGen
	// Released says that the expiry governor held the leases and lets them go.
	Released bool
	Caller   muster.Caller
}

// Suspect marks what hangs on leases as held by the expiry governor.
type Suspect struct {
	Term   uint64
	Leases []LeaseGen
	Reason string
	Caller muster.Caller
}

// Release takes the suspect mark off: the leases were heard from again.
type Release struct {
	Term   uint64
	Leases []muster.LeaseID
	Caller muster.Caller
}

// ReapTarget names an instance that is down by expiry, as it was last changed.
type ReapTarget struct {
	Key         muster.InstanceKey
	ModifyIndex uint64
}

// Reap removes instances that were down by expiry for their remove_after.
type Reap struct {
	Term    uint64
	Targets []ReapTarget
	Caller  muster.Caller
}

// Verdict is what the leader has decided about the checks of an instance.
type Verdict struct {
	Key muster.InstanceKey
	// Life is the instance's ChecksFrom as whoever decided has seen it: where it
	// has moved the verdict does not hold.
	Life uint64
	// Checks are the states of all its checks, in order. Where a status is not
	// another than before, only Contested counts; Since is the entry's time.
	Checks []muster.CheckState
	// HeldUntil holds the instance out, whatever its checks say; zero lets it go.
	HeldUntil time.Time
}

// Judge gives instances the states of their checks, on the decision of the leader
// of Term. It is dropped as a whole where the entry's own term differs; verdicts on
// an earlier life, and on what is down by expiry, are skipped.
type Judge struct {
	Term     uint64
	Verdicts []Verdict
	Caller   muster.Caller
}

// SetOverride puts an operator's layer above what the owner registered. The
// override's actor is the caller's.
type SetOverride struct {
	Key      muster.InstanceKey
	Override muster.Override
	Caller   muster.Caller
}

// ClearOverride removes the override. With a Term it is the leader's decision
// that Until has passed, and is dropped where the term or the override's own
// until differ.
type ClearOverride struct {
	Key    muster.InstanceKey
	Term   uint64
	Until  time.Time
	Caller muster.Caller
}

// GrantLease makes a lease that many instances may name.
type GrantLease struct {
	TTL    muster.TTL
	Name   string
	Caller muster.Caller
}

// RevokeLease ends a lease and removes, on purpose, all that hangs on it.
type RevokeLease struct {
	ID     muster.LeaseID
	Caller muster.Caller
}

// Configure gives a service settings of its own, or takes them away (nil). They
// stay when the last instance goes, and may be there before the first comes.
type Configure struct {
	Key      muster.ServiceKey
	Settings *muster.Settings
	Caller   muster.Caller
}

// SwitchGovernor turns the expiry governor on or off for the whole cluster.
type SwitchGovernor struct {
	On     bool
	Caller muster.Caller
}

// Epoch opens a leader's session: its result is the term of the entry. The first
// one names the cluster. It discards an unfinished restore.
type Epoch struct {
	ClusterID string
}

// Member remembers the highest boot counter seen of a cluster member, or that
// it was removed.
type Member struct {
	ID      string
	Boot    uint64
	Removed bool
}

// RestoreBegin opens the restore of a backup of Total bytes under an id that the
// caller chooses. Until it is committed, aborted or discarded, other writes of
// clients are refused.
type RestoreBegin struct {
	ID     string
	Total  uint64
	Caller muster.Caller
}

// RestoreChunk carries up to MaxRestoreChunk bytes of the backup.
type RestoreChunk struct {
	ID     string
	Offset uint64
	Data   []byte
}

// RestoreCommit replaces the content of the registry by the backup, whose
// SHA-256 it names.
type RestoreCommit struct {
	ID     string
	SHA256 [32]byte
	Caller muster.Caller
}

// RestoreAbort gives an unfinished restore up.
type RestoreAbort struct {
	ID string
}
