package node

import (
	"context"
	"fmt"
	"net"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/health"
	"github.com/muster-registry/muster/lease"
)

// checkFeed passes what the state machine applied on to the supervisor. The
// supervisor is set before anything runs.
type checkFeed struct{ supervisor *health.Supervisor }

// Applied is called on raft's goroutine.
func (f *checkFeed) Applied(c fsm.Changes) {
	changes := health.Changes{Reset: c.Reset}
	for _, e := range c.Entries {
		for _, ev := range e.Events {
			if ev.ID != "" {
				changes.Instances = append(changes.Instances, health.Change{
					Key: muster.InstanceKey{Namespace: ev.Namespace, Service: ev.Service, ID: ev.ID}, Instance: ev.Instance,
				})
			}
		}
	}
	if changes.Reset || len(changes.Instances) > 0 {
		f.supervisor.Observe(changes)
	}
}

// checkState lets the supervisor read the state machine.
type checkState struct{ state *fsm.FSM }

func (s checkState) Instances(yield func(*muster.Instance) bool) {
	for v := range s.state.Views() {
		for _, i := range v.Instances {
			if !yield(i) {
				return
			}
		}
	}
}

func (s checkState) Routable(k muster.ServiceKey) int {
	if v := s.state.View(k); v != nil {
		return v.Routable()
	}
	return 0
}

func (s checkState) Expired(i *muster.Instance) bool { return fsm.Expired(i) }

// checkRaft is what the supervisor asks of consensus.
type checkRaft struct{ *cluster.Node }

func (r checkRaft) Live() []string {
	var ids []string
	for _, m := range r.Status().Members {
		if m.Alive {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (r checkRaft) Ready() bool {
	_, ready := r.Freshness()
	return ready
}

// checkLog carries the supervisor's decisions into the log.
type checkLog struct{ cluster *cluster.Node }

func (l checkLog) Decide(ctx context.Context, term uint64, all []health.Transition) error {
	op := fsm.Judge{Term: term, Caller: muster.Caller{Actor: "node:" + l.cluster.ID()}}
	for _, t := range all {
		op.Verdicts = append(op.Verdicts, fsm.Verdict(t))
	}
	for _, o := range l.cluster.ProposeAs(ctx, term, [][]byte{fsm.Encode(op)}) {
		if o.Err != nil {
			return o.Err
		}
		res, err := fsm.DecodeResult(o.Result)
		if err != nil {
			return fmt.Errorf("deciding about checks: %w", err)
		}
		if res.Dropped {
			return muster.Errorf(muster.CodeNoLeader, "the decision was dropped: it was of term %d", term)
		}
	}
	return nil
}

// confirmDead tells the keeper about leases whose instances have all failed their
// checks: the governor need not hold them any longer.
func confirmDead(state *fsm.FSM, keeper *lease.Keeper) func([]*muster.Instance) {
	return func(dead []*muster.Instance) {
		var ids []muster.LeaseID
		for _, i := range dead {
			if i.TTL != 0 || allDead(state, i.LeaseID) {
				ids = append(ids, i.LeaseID)
			}
		}
		keeper.ConfirmDead(ids)
	}
}

// allDead reports whether all that hangs on a shared lease has failed its checks.
func allDead(state *fsm.FSM, id muster.LeaseID) bool {
	l, ok := state.Lease(id)
	if !ok {
		return false
	}
	for _, k := range l.Instances {
		v := state.View(muster.ServiceKey{Namespace: k.Namespace, Service: k.Service})
		if v == nil {
			return false
		}
		if i := v.Find(k.ID); i == nil || muster.WorstCheck(i.Checks) != muster.StatusDown {
			return false
		}
	}
	return true
}

// guard is what stands between probes and what they must not reach.
func (n *Node) guard(faults *health.Faults) *health.Guard {
	loopback := true
	for _, a := range []string{n.cfg.APIAddr, n.cfg.PeerAddr, n.cfg.GossipAddr} {
		host, _, err := net.SplitHostPort(a)
		loopback = loopback && err == nil && isLoopback(host)
	}
	loopback = loopback && (n.cfg.Advertise == "" || isLoopback(n.cfg.Advertise))
	return health.NewGuard(health.GuardConfig{Loopback: loopback, Own: n.cluster.Addresses, Faults: faults})
}
