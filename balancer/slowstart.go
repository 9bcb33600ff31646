package balancer

import (
	"time"

	"github.com/muster-registry/muster"
)

// rampSteps is in how many steps an instance comes up to its full weight. Each step
// builds the schedules anew.
const rampSteps = 20

// rampFloor is the step a new instance begins at: a tenth of its weight.
const rampFloor = 2

// ramp is slow start at one moment: an instance younger than the settings'
// SlowStart has a part of its weight that grows evenly with its age, so that it can
// warm up (as in nginx, HAProxy and Envoy). Its age counts from when it was last
// registered anew or became up.
type ramp struct {
	length time.Duration // 0: nobody is on the way up
	// now is the caller's time cut to a whole step, the same for all instances, so
	// that a view is built rampSteps times and not once for each of them.
	now  time.Time
	step int64 // the number of that step
}

// rampAt returns the ramp for insts at the time wall, and how long it holds; 0 is
// for ever.
func rampAt(insts []*muster.Instance, length time.Duration, wall time.Time) (ramp, time.Duration) {
	if length <= 0 {
		return ramp{}, 0
	}
	tick := max(length/rampSteps, time.Millisecond)
	up := ramp{length: length, now: wall.Truncate(tick)}
	up.step = up.now.UnixNano()/int64(tick) + 1
	for _, i := range insts {
		if up.part(i) < rampSteps {
			return up, up.now.Add(tick).Sub(wall)
		}
	}
	return ramp{}, 0
}

// part is how much of its weight i has, of rampSteps.
func (r ramp) part(i *muster.Instance) int64 {
	since := i.RegisteredAt
	if i.StatusSince.After(since) {
		since = i.StatusSince
	}
	age := r.now.Sub(since)
	// An instance from further ahead than the ramp is long says that a clock is
	// wrong, not that it is young.
	if age >= r.length || age <= -r.length {
		return rampSteps
	}
	return max(rampFloor, int64(age)*rampSteps/int64(r.length))
}

// weight is i's weight on the ramp, in units of its own where somebody is on it.
func (r ramp) weight(i *muster.Instance) uint32 {
	if r.length == 0 {
		return uint32(i.Weight)
	}
	return uint32(int64(i.Weight) * r.part(i))
}
