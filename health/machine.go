package health

import "github.com/muster-registry/muster"

// Machine is the state of one check as one node sees it: unknown until Rise
// successes or Fall failures in a row, then up or down until as many of the other.
// It is a plain value.
type Machine struct {
	State muster.Status
	// Fall and Rise are at least 1.
	Fall, Rise int
	// Passed and Failed are how many in a row; one of them is 0.
	Passed, Failed int
}

// NewMachine starts in state, which is what is known of the check so far.
func NewMachine(c *muster.Check, state muster.Status) Machine {
	if state != muster.StatusUp && state != muster.StatusDown {
		state = muster.StatusUnknown
	}
	return Machine{State: state, Fall: max(c.Fall, 1), Rise: max(c.Rise, 1)}
}

// Observe takes the outcome of one probe and reports whether the state changed.
func (m *Machine) Observe(passed bool) bool {
	before := m.State
	if passed {
		m.Passed, m.Failed = min(m.Passed+1, m.Rise), 0
		if m.Passed == m.Rise {
			m.State = muster.StatusUp
		}
	} else {
		m.Passed, m.Failed = 0, min(m.Failed+1, m.Fall)
		if m.Failed == m.Fall {
			m.State = muster.StatusDown
		}
	}
	return m.State != before
}
