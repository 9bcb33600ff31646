package clustertest_test

import (
	"context"
	"log/slog"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

// The keeper is wired to the state machine and to consensus as package node does
// it, over a process instead of a cluster.Node.

// Applied implements fsm.Listener.
func (p *process) Applied(c fsm.Changes) {
	p.w.applied(p, c)
	p.keeper.Observe(simChanges(c))
}

func simChanges(c fsm.Changes) lease.Changes {
	changes := lease.Changes{Index: c.Index, Reset: c.Reset}
	for _, l := range c.Leases {
		changes.Leases = append(changes.Leases, lease.Change{Record: simRecord(l.LeaseRecord), Heard: l.Heard, Gone: l.Gone})
	}
	for _, e := range c.Entries {
		for _, ev := range e.Events {
			t := lease.Timer{Key: muster.InstanceKey{Namespace: ev.Namespace, Service: ev.Service, ID: ev.ID}}
			if ev.Instance != nil {
				t = simTimer(ev.Instance)
			}
			changes.Timers = append(changes.Timers, t)
		}
	}
	return changes
}

func simRecord(r fsm.LeaseRecord) lease.Record {
	return lease.Record{ID: r.ID, TTL: r.TTL, Generation: r.Generation, Suspect: r.Suspect, Services: r.Services}
}

func simTimer(i *muster.Instance) lease.Timer {
	t := lease.Timer{Key: muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}, ModifyIndex: i.ModifyIndex}
	if fsm.Expired(i) {
		t.RemoveAfter = time.Duration(i.RemoveAfter)
	}
	return t
}

// simState implements lease.State.
type simState struct{ state *fsm.FSM }

func (s simState) Leases(yield func(lease.Record) bool) {
	s.state.Leases(func(r fsm.LeaseRecord) bool { return yield(simRecord(r)) })
}

func (s simState) Timers(yield func(lease.Timer) bool) {
	for v := range s.state.Views() {
		for _, i := range v.Instances {
			if t := simTimer(i); t.RemoveAfter > 0 && !yield(t) {
				return
			}
		}
	}
}

func (s simState) Find(k muster.InstanceKey) (id muster.LeaseID, incarnation uint64, ok bool) {
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

// Decide implements lease.Log.
func (p *process) Decide(ctx context.Context, term uint64, d lease.Decision) (uint64, error) {
	p.stop.pass(p.dead)
	op := simDecision(p.n.id, term, d)
	if op == nil {
		return 0, muster.Errorf(muster.CodeNoLeader, "the simulation has no %s", d.Kind)
	}
	if decide := p.w.faulty.decide; decide != nil {
		p.w.wg.Go(func() { decide(p, term, d) })
		<-ctx.Done()
		return 0, ctx.Err()
	}
	if p.w.firstQueued() && !simSleep(ctx.Done(), p.w.faulty.queued) {
		return 0, ctx.Err()
	}
	out, err := p.proposeAs(ctx, term, [][]byte{fsm.Encode(op)})
	if err != nil {
		return 0, err
	}
	res, err := fsm.DecodeResult(out[0])
	if err == nil && res.Dropped {
		err = muster.Errorf(muster.CodeNoLeader, "the decision was dropped: it was of term %d", term)
	}
	return res.Index, err
}

// simDecision is the operation of a decision; nil for one the simulations do not have.
func simDecision(node string, term uint64, d lease.Decision) fsm.Op {
	by := muster.Caller{Actor: "node:" + node, Reason: d.Reason}
	refs := make([]fsm.LeaseGen, len(d.Leases))
	ids := make([]muster.LeaseID, len(d.Leases))
	for n, l := range d.Leases {
		refs[n], ids[n] = fsm.LeaseGen{ID: l.ID, Generation: l.Generation}, l.ID
	}
	switch d.Kind {
	case lease.Expire, lease.LetGo:
		return fsm.Expire{Term: term, Leases: refs, Released: d.Kind == lease.LetGo, Caller: by}
	case lease.Suspect:
		return fsm.Suspect{Term: term, Leases: refs, Reason: d.Reason, Caller: by}
	case lease.Renewed:
		return fsm.Release{Term: term, Leases: ids, Caller: by}
	case lease.Reap:
		op := fsm.Reap{Term: term, Caller: by}
		for _, t := range d.Timers {
			op.Targets = append(op.Targets, fsm.ReapTarget{Key: t.Key, ModifyIndex: t.ModifyIndex})
		}
		return op
	}
	return nil
}

// ID implements lease.Raft.
func (p *process) ID() string { return p.n.id }

// CurrentTerm implements lease.Raft.
func (p *process) CurrentTerm() uint64 {
	p.stop.pass(p.dead)
	return p.raft.CurrentTerm()
}

// Voters implements lease.Raft.
func (p *process) Voters() []string {
	var ids []string
	for _, s := range p.raft.GetConfiguration().Configuration().Servers {
		ids = append(ids, string(s.ID))
	}
	return ids
}

// Leader implements lease.Raft.
func (p *process) Leader() (id, apiAddr string) {
	_, l := p.raft.LeaderWithID()
	return string(l), ""
}

// NoteMajority implements lease.Raft.
func (p *process) NoteMajority(term uint64, _ time.Time) { p.w.confirmed(p, term) }

// Handle implements lease.Peers.
func (p *process) Handle(method string, fn func(context.Context, string, []byte) ([]byte, error)) {
	p.handlers[method] = fn
}

func (p *process) handler(method string) handlerFunc { return p.handlers[method] }

// simLog learns from the keeper's log when it has taken the leases over.
type simLog struct{ p *process }

func (*simLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (l *simLog) WithAttrs([]slog.Attr) slog.Handler         { return l }
func (l *simLog) WithGroup(string) slog.Handler              { return l }
func (l *simLog) Handle(_ context.Context, r slog.Record) error {
	text := ""
	var term uint64
	r.Attrs(func(a slog.Attr) bool {
		if text += " " + a.String(); a.Key == "term" {
			term = a.Value.Uint64()
		}
		return true
	})
	l.p.w.trace("%s: %s%s", l.p.n.id, r.Message, text)
	if r.Message == "leases taken over" {
		l.p.w.tookOver(l.p, term)
	}
	return nil
}
