package health

import (
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

// weigh makes the state of a check of what its owners hold of it; of an owner
// that has not spoken there is nil. It is down when all owners see it failing,
// and up as soon as one of them sees it passing: a node that is cut off from an
// instance evicts nobody. While one has not spoken and none sees it passing, what
// was before stays. split says that the owners disagree.
func weigh(now muster.CheckState, owners []*opinion) (next muster.CheckState, split bool) {
	var up, down *opinion
	missing := len(owners) == 0
	for _, o := range owners {
		switch {
		case o == nil:
			missing = true
		case o.status == muster.StatusUp:
			up = o
		default:
			down = o
		}
	}
	switch {
	case up != nil:
		return turned(now, up), down != nil || missing && now.Contested
	case missing:
		return now, now.Contested
	}
	return turned(now, down), false
}

// turned is now, or what o says where that is another status.
func turned(now muster.CheckState, o *opinion) muster.CheckState {
	if now.Status == o.status {
		return now
	}
	return muster.CheckState{
		Status: o.status, Cause: o.cause, Output: o.output, Latency: muster.Duration(o.latency), Contested: now.Contested,
	}
}

// docket is what the leader has before it about one life of an instance.
type docket struct {
	opinions []statement
	damper   Damper
	// split is since when the owners of each check disagree; zero: they do not.
	split []time.Time
}

// statement is an opinion and who holds it.
type statement struct {
	from string
	opinion
}

func newDocket(i *muster.Instance, now time.Time) *docket {
	d := &docket{split: make([]time.Time, len(i.Checks))}
	if !i.HeldUntil.IsZero() {
		d.damper = HeldDamper(i.HeldUntil, now)
	}
	return d
}

func (d *docket) hear(from string, o opinion) {
	d.forget(func(s statement) bool { return s.from == from && s.place == o.place })
	d.opinions = append(d.opinions, statement{from, o})
}

func (d *docket) forget(which func(statement) bool) {
	d.opinions = slices.DeleteFunc(d.opinions, which)
}

func (d *docket) of(from string, place int) *opinion {
	for n := range d.opinions {
		if s := &d.opinions[n]; s.from == from && s.place == place {
			return &s.opinion
		}
	}
	return nil
}

// contestAfter is for how long owners disagree before that is shown: they do for
// a moment at every change, since they do not probe at the same time.
func contestAfter(c *muster.Check) time.Duration {
	return time.Duration(max(c.Fall, c.Rise))*time.Duration(c.Interval) + time.Duration(c.Timeout) + time.Second
}

// judge decides about an instance. It returns nil where all stays as it is.
// waiting says that time alone may change that. The docket changes only in what
// it remembers of disagreements; commit is to be called once the transition was
// applied.
func (d *docket) judge(i *muster.Instance, set *probers, now time.Time) (next *ruling, waiting bool) {
	key := keyOf(i)
	r := &ruling{damper: d.damper}
	r.Key, r.Life, r.Checks = key, i.ChecksFrom, make([]muster.CheckState, len(i.Checks))
	after := make([]muster.Check, len(i.Checks))
	for place := range i.Checks {
		c := &i.Checks[place]
		state, split := weigh(c.CheckState, d.owned(set, key, place))
		switch {
		case !split:
			d.split[place] = time.Time{}
		case d.split[place].IsZero():
			d.split[place] = now
		}
		waiting = waiting || split && !c.Contested
		state.Contested = split && (c.Contested || now.Sub(d.split[place]) >= contestAfter(c))
		r.changed = r.changed || state.Status != c.Status || state.Contested != c.Contested
		r.contests = r.contests || state.Contested && !c.Contested
		r.Checks[place], after[place].CheckState = state, state
	}
	before, status := muster.WorstCheck(i.Checks), muster.WorstCheck(after)
	if before != status && before != muster.StatusUnknown && status != muster.StatusUnknown {
		r.damper.Change(now)
	}
	r.HeldUntil = r.damper.Held(now)
	r.changed = r.changed || !r.HeldUntil.Equal(i.HeldUntil)
	waiting = waiting || !r.HeldUntil.IsZero()
	if !r.changed {
		return nil, waiting
	}
	return r, waiting
}

func (d *docket) owned(set *probers, key muster.InstanceKey, place int) []*opinion {
	first, second := set.owners(checkHash(key, place))
	switch {
	case first == "":
		return nil
	case second == "":
		return []*opinion{d.of(first, place)}
	}
	return []*opinion{d.of(first, place), d.of(second, place)}
}

// ruling is a transition before it is applied.
type ruling struct {
	Transition
	t        *target
	damper   Damper
	changed  bool
	contests bool
}

// size is about how many bytes r takes in the log.
func (r *ruling) size() int {
	n := len(r.Key.Namespace) + len(r.Key.Service) + len(r.Key.ID) + 40
	for _, c := range r.Checks {
		n += len(c.Cause) + len(c.Output) + 30
	}
	return n
}

func keyOf(i *muster.Instance) muster.InstanceKey {
	return muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}
}
