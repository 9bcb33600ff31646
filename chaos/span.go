package chaos

import (
	"fmt"
	"strings"
	"time"
)

// FaultSpan is one fault of a run, from when its injection began. Times are this
// process's, with their monotonic reading.
type FaultSpan struct {
	Fault string `json:"fault"`
	// Nodes are the names of the nodes it was done to.
	Nodes []string `json:"nodes,omitempty"`
	// Start is when the injection began, Heal when its undoing began, Healed when all
	// nodes were ready and followed a leader again. A zero time has not come yet.
	Start  time.Time `json:"start"`
	Heal   time.Time `json:"heal,omitzero"`
	Healed time.Time `json:"healed,omitzero"`
	// Shocks are when more was done within it that may cost a leader.
	Shocks []time.Time `json:"shocks,omitempty"`
	// Stall is whether no majority was able to work at some time in between (all nodes
	// killed or stopped): leases get a full ttl anew from then on.
	Stall bool `json:"stall,omitempty"`
	// Restore is set where a backup was saved and brought back within the span.
	Restore *RestoreSpan `json:"restore,omitempty"`
	// Elections and FastElections are how often the cluster's term went up, and how
	// many elections nodes began because a leader's process was gone.
	Elections     uint64 `json:"elections"`
	FastElections uint64 `json:"fast_elections"`
	// Note is what else there is to say of it.
	Note string `json:"note,omitempty"`
}

// RestoreSpan is a backup and its restore. The backup holds every write acknowledged
// before SaveCall and none begun after SaveReturn; the restore replaces the whole
// content in one step between RestoreCall and RestoreReturn, where every lease
// begins anew.
type RestoreSpan struct {
	SaveCall, SaveReturn       time.Time
	RestoreCall, RestoreReturn time.Time // a zero RestoreReturn: whether and when is not known
	// Index is that of the entry that brought it back; 0 where not known.
	Index uint64
	// Refused is whether the restore surely did not happen.
	Refused bool
}

// End is the time at which the cluster was whole again, or now.
func (s *FaultSpan) End(now time.Time) time.Time {
	if s.Healed.IsZero() {
		return now
	}
	return s.Healed
}

// String says the fault and where it was.
func (s *FaultSpan) String() string {
	if len(s.Nodes) == 0 {
		return s.Fault
	}
	return fmt.Sprintf("%s(%s)", s.Fault, strings.Join(s.Nodes, " "))
}
