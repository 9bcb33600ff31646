package muster

import "time"

// Status is the truth about an instance as the registry knows it.
type Status string

// The statuses of an instance.
const (
	// StatusUnknown: its checks have not run yet; not routable.
	StatusUnknown Status = "unknown"
	StatusUp      Status = "up"
	// StatusDown: a check failed, or its lease ran out and it was to be kept.
	StatusDown Status = "down"
	// StatusDraining and StatusMaintenance are set by an operator's override.
	StatusDraining    Status = "draining"
	StatusMaintenance Status = "maintenance"
)

// ParseStatus reads one of the statuses.
func ParseStatus(s string) (Status, error) {
	switch st := Status(s); st {
	case StatusUnknown, StatusUp, StatusDown, StatusDraining, StatusMaintenance:
		return st, nil
	}
	return "", Errorf(CodeInvalidFilter, "%q is not a status", clip(s)).
		WithHint("use one of unknown, up, down, draining, maintenance")
}

// Cause says why an instance is in its status, or why an event happened.
type Cause string

// The causes.
const (
	CauseRegistered      Cause = "registered"
	CauseUpdated         Cause = "updated"
	CauseDeregistered    Cause = "deregistered"
	CauseLeaseExpired    Cause = "lease_expired"
	CauseLeaseRevoked    Cause = "lease_revoked"
	CauseCheckFailed     Cause = "check_failed"
	CauseCheckPassed     Cause = "check_passed"
	CauseMaintenance     Cause = "maintenance"
	CauseDrain           Cause = "drain"
	CauseOverrideRemoved Cause = "override_removed"
	CauseOverrideEnded   Cause = "override_ended"
	// CauseSuspected: the lease ran out in a mass loss and the expiry governor
	// holds the instance instead of removing it.
	CauseSuspected Cause = "suspected"
	// CauseRenewed: a held instance was heard from again.
	CauseRenewed Cause = "renewed"
	// CauseReleased: the governor let a held instance go.
	CauseReleased Cause = "released"
	// CauseRemoveAfter: an instance that was down by expiry stayed so for its
	// remove_after.
	CauseRemoveAfter Cause = "remove_after"
	CauseRestored    Cause = "restored"
	// CauseConfigured: a service was given settings, CauseUnconfigured: they were
	// taken away and the defaults hold again.
	CauseConfigured   Cause = "configured"
	CauseUnconfigured Cause = "unconfigured"
	// CauseCheckContested: the nodes that probe a check have come to disagree, or
	// to agree again.
	CauseCheckContested Cause = "check_contested"
	// CauseFlapping: it changed too often and is held out for a while.
	CauseFlapping Cause = "flapping"
)

// Override is the operator's layer above what the owner registered. A
// re-registration does not remove it.
type Override struct {
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
	Actor  string `json:"actor,omitempty"`
	// Until ends the override by itself, on the leader's wall clock; zero: never.
	Until time.Time `json:"until,omitzero"`
}

// Validate checks the status and the reason of an override.
func (o *Override) Validate() error {
	if o.Status != StatusMaintenance && o.Status != StatusDraining {
		return &Error{
			Code: CodeConflictingField, Detail: "an override's status is maintenance or draining",
			Fields: []FieldError{{Pointer: "/status", Detail: "is not maintenance or draining"}},
		}
	}
	var err error
	o.Reason, err = CleanReason(o.Reason)
	return err
}

// Cause is the cause that an instance under this override shows.
func (o *Override) Cause() Cause {
	if o.Status == StatusDraining {
		return CauseDrain
	}
	return CauseMaintenance
}
