package health

import (
	"net"
	"strconv"
	"time"

	"github.com/muster-registry/muster"
)

// conflictsEvery is how often the leader looks for conflicts.
const conflictsEvery = 30 * time.Second

// Conflict is two live instances of different services on one address and port:
// one of them is a leftover, or not what it says.
type Conflict struct{ A, B muster.InstanceKey }

// Conflicts finds the instances that cannot all be what they say.
func Conflicts(all func(yield func(*muster.Instance) bool)) []Conflict {
	first := make(map[string]*muster.Instance)
	var found []Conflict
	for i := range all {
		if i.Status != muster.StatusUp && i.Status != muster.StatusUnknown {
			continue
		}
		address := net.JoinHostPort(i.Address, strconv.Itoa(i.Port))
		switch other := first[address]; {
		case other == nil:
			first[address] = i
		case other.Service != i.Service || other.Namespace != i.Namespace:
			found = append(found, Conflict{keyOf(other), keyOf(i)})
		}
	}
	return found
}

// maxConflictLogs is how many conflicts are logged one by one in a search.
const maxConflictLogs = 10

// searchConflicts shows conflicts, and logs those that were not there before.
func (s *Supervisor) searchConflicts() {
	found := Conflicts(s.deps.State.Instances)
	s.metrics.conflicts.Set(float64(len(found)))
	known := s.conflicts
	s.conflicts = make(map[Conflict]bool, len(found))
	logged := 0
	for _, c := range found {
		s.conflicts[c] = true
		if known[c] || logged == maxConflictLogs {
			continue
		}
		logged++
		s.log.Warn("two services claim one address and port", "instance", c.A.String(), "other", c.B.String())
	}
}
