package muster

// Pick is the answer to a pick: the instance that was chosen, and how.
type Pick struct {
	Instance *Instance `json:"instance"`
	// Instances are the distinct ones that were asked for with n, Instance first.
	Instances []*Instance `json:"instances,omitempty"`
	Strategy  string      `json:"strategy"`
	// Index is the index of the view that was chosen from.
	Index uint64 `json:"index"`
	// Panic says that too few instances were well, and that the choice was made
	// among all that may be alive.
	Panic bool `json:"panic"`
	// Ticket is what the outcome is reported with; "" where none was asked for.
	Ticket string `json:"ticket,omitempty"`
}

// PickResult is how the request to a picked instance went.
type PickResult string

// How a request went. What its caller did wrong or gave up is no failure of the
// instance.
const (
	PickSuccess PickResult = "success"
	PickFailure PickResult = "failure"
)

// PickReport ends a ticket and says what became of the pick.
type PickReport struct {
	Outcome PickResult `json:"outcome"`
	// Latency is how long the request took; 0 does not say.
	Latency Duration `json:"latency,omitempty"`
}

// Validate reports an outcome that is neither success nor failure.
func (r *PickReport) Validate() error {
	if r.Outcome == PickSuccess || r.Outcome == PickFailure {
		return nil
	}
	var f faults
	f.add("/outcome", CodeConflictingField, "\""+clip(string(r.Outcome))+"\" is neither success nor failure")
	return f.err()
}

// OutcomesReport says what became of several requests to one instance.
type OutcomesReport struct {
	Successes uint64 `json:"successes"`
	Failures  uint64 `json:"failures"`
	// Latency is that of one of them, or their average; 0 does not say.
	Latency Duration `json:"latency,omitempty"`
}
