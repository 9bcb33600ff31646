package lease

import (
	"math"
	"time"

	"github.com/muster-registry/muster"
)

// never is before any time. Times before this process began are negative.
const never = time.Duration(math.MinInt64 / 2)

// record is a lease as the leader's keeper knows it. When it was heard from
// stands in the table. It is in exactly one place: in the wheel (slot > 0), due,
// in a flight that removes it, or suspect.
type record struct {
	id         muster.LeaseID
	generation uint64
	ttl        time.Duration
	services   []muster.ServiceKey

	flight   *flight // the decision about it that is on its way
	heldAt   time.Duration
	gathered time.Duration // at promotion: the youngest age of a shadow, as a time

	prev, next *record // in the wheel's slot
	slot       int32   // the wheel's slot + 1; 0 in none

	gone      bool // ended
	due       bool // ran out, not decided about
	suspect   bool // the state says that the governor holds it
	counted   bool // the governor has counted it as lost
	returning bool // suspect and heard from again
	confirmed bool // suspect and confirmed dead
}
