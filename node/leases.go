package node

import (
	"context"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

// leaseFeed passes what the state machine applied on to the keeper. The keeper is
// set before anything runs.
type leaseFeed struct{ keeper *lease.Keeper }

// Applied is called on raft's goroutine.
func (f *leaseFeed) Applied(c fsm.Changes) {
	changes := lease.Changes{Index: c.Index, Reset: c.Reset}
	for _, l := range c.Leases {
		changes.Leases = append(changes.Leases, lease.Change{Record: leaseRecord(l.LeaseRecord), Heard: l.Heard, Gone: l.Gone})
	}
	for _, e := range c.Entries {
		for _, ev := range e.Events {
			if ev.Type == muster.EventSettings {
				continue
			}
			t := lease.Timer{Key: muster.InstanceKey{Namespace: ev.Namespace, Service: ev.Service, ID: ev.ID}}
			if ev.Instance != nil {
				t = timerOf(ev.Instance)
			}
			changes.Timers = append(changes.Timers, t)
		}
	}
	f.keeper.Observe(changes)
}

func leaseRecord(r fsm.LeaseRecord) lease.Record {
	return lease.Record{ID: r.ID, TTL: r.TTL, Generation: r.Generation, Suspect: r.Suspect, Services: r.Services}
}

// timerOf is what the leader has to end for i when the time comes.
func timerOf(i *muster.Instance) lease.Timer {
	t := lease.Timer{Key: muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}, ModifyIndex: i.ModifyIndex}
	if fsm.Expired(i) {
		t.RemoveAfter = time.Duration(i.RemoveAfter)
	}
	if i.Override != nil {
		t.Until = i.Override.Until
	}
	return t
}

// leaseState lets the keeper read the state machine.
type leaseState struct{ state *fsm.FSM }

func (s leaseState) Leases(yield func(lease.Record) bool) {
	s.state.Leases(func(r fsm.LeaseRecord) bool { return yield(leaseRecord(r)) })
}

func (s leaseState) Timers(yield func(lease.Timer) bool) {
	for v := range s.state.Views() {
		for _, i := range v.Instances {
			if t := timerOf(i); (t.RemoveAfter > 0 || !t.Until.IsZero()) && !yield(t) {
				return
			}
		}
	}
}

func (s leaseState) Find(k muster.InstanceKey) (id muster.LeaseID, incarnation uint64, ok bool) {
	v := s.state.View(muster.ServiceKey{Namespace: k.Namespace, Service: k.Service})
	if v == nil {
		return 0, 0, false
	}
	i := v.Find(k.ID)
	if i == nil || fsm.Expired(i) {
		return 0, 0, false
	}
	return i.LeaseID, i.Incarnation, true
}

// leaseSwitches say where the governor may hold leases.
type leaseSwitches struct{ state *fsm.FSM }

func (s leaseSwitches) GovernorOn() bool { return s.state.GovernorOn() }

func (s leaseSwitches) GovernorOnFor(k muster.ServiceKey) bool {
	own := s.state.Settings(k)
	return own == nil || own.Protect
}

// leaseLog carries the keeper's decisions into the log.
type leaseLog struct{ cluster *cluster.Node }

func (l leaseLog) Decide(ctx context.Context, term uint64, d lease.Decision) (index uint64, err error) {
	for _, o := range l.cluster.ProposeAs(ctx, term, decisionOps(term, d, muster.Caller{Actor: "node:" + l.cluster.ID(), Reason: d.Reason})) {
		if o.Err != nil {
			return 0, o.Err
		}
		res, err := fsm.DecodeResult(o.Result)
		if err != nil {
			return 0, err
		}
		if res.Dropped && d.Kind != lease.EndOverrides {
			return 0, muster.Errorf(muster.CodeNoLeader, "the decision was dropped: it was of term %d", term)
		}
		index = max(index, res.Index)
	}
	return index, nil
}

// decisionOps makes operations of a decision: one, except for the ends of
// overrides, each of which stands for itself.
func decisionOps(term uint64, d lease.Decision, by muster.Caller) [][]byte {
	refs := make([]fsm.LeaseGen, len(d.Leases))
	ids := make([]muster.LeaseID, len(d.Leases))
	for n, l := range d.Leases {
		refs[n], ids[n] = fsm.LeaseGen{ID: l.ID, Generation: l.Generation}, l.ID
	}
	switch d.Kind {
	case lease.Expire, lease.LetGo:
		return [][]byte{fsm.Encode(fsm.Expire{Term: term, Leases: refs, Released: d.Kind == lease.LetGo, Caller: by})}
	case lease.Suspect:
		return [][]byte{fsm.Encode(fsm.Suspect{Term: term, Leases: refs, Reason: d.Reason, Caller: by})}
	case lease.Renewed:
		return [][]byte{fsm.Encode(fsm.Release{Term: term, Leases: ids, Caller: by})}
	case lease.Reap:
		op := fsm.Reap{Term: term, Caller: by}
		for _, t := range d.Timers {
			op.Targets = append(op.Targets, fsm.ReapTarget{Key: t.Key, ModifyIndex: t.ModifyIndex})
		}
		return [][]byte{fsm.Encode(op)}
	default: // lease.EndOverrides
		ops := make([][]byte, len(d.Timers))
		for n, t := range d.Timers {
			ops[n] = fsm.Encode(fsm.ClearOverride{Key: t.Key, Term: term, Until: t.Until, Caller: by})
		}
		return ops
	}
}
