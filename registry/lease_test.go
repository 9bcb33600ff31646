package registry_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

// feed passes the state's changes to the keeper.
type feed struct{ keeper *lease.Keeper }

func (f *feed) Applied(c fsm.Changes) {
	changes := lease.Changes{Index: c.Index, Reset: c.Reset}
	for _, l := range c.Leases {
		changes.Leases = append(changes.Leases, lease.Change{Record: record(l.LeaseRecord), Heard: l.Heard, Gone: l.Gone})
	}
	f.keeper.Observe(changes)
}

func record(r fsm.LeaseRecord) lease.Record {
	return lease.Record{ID: r.ID, TTL: r.TTL, Generation: r.Generation, Suspect: r.Suspect, Services: r.Services}
}

// A lone consensus is also all that a keeper needs of a cluster of one.

func (l *lone) Leases(yield func(lease.Record) bool) {
	l.state.Leases(func(r fsm.LeaseRecord) bool { return yield(record(r)) })
}
func (l *lone) Timers(func(lease.Timer) bool) {}
func (l *lone) Find(k muster.InstanceKey) (muster.LeaseID, uint64, bool) {
	v := l.state.View(muster.ServiceKey{Namespace: k.Namespace, Service: k.Service})
	if v == nil || v.Find(k.ID) == nil {
		return 0, 0, false
	}
	return v.Find(k.ID).LeaseID, v.Find(k.ID).Incarnation, true
}
func (l *lone) Decide(ctx context.Context, term uint64, d lease.Decision) (uint64, error) {
	if d.Kind != lease.Expire {
		return 0, nil
	}
	op := fsm.Expire{Term: term}
	for _, ref := range d.Leases {
		op.Leases = append(op.Leases, fsm.LeaseGen{ID: ref.ID, Generation: ref.Generation})
	}
	o := l.Propose(ctx, [][]byte{fsm.Encode(op)})[0]
	if o.Err != nil {
		return 0, o.Err
	}
	res, err := fsm.DecodeResult(o.Result)
	return res.Index, err
}
func (l *lone) ID() string                     { return "n1" }
func (l *lone) CurrentTerm() uint64            { return 1 }
func (l *lone) Voters() []string               { return []string{"n1"} }
func (l *lone) Leader() (string, string)       { return "n1", "" }
func (l *lone) NoteMajority(uint64, time.Time) {}
func (l *lone) Handle(string, func(context.Context, string, []byte) ([]byte, error)) {
}
func (l *lone) Call(context.Context, string, string, []byte) ([]byte, error) {
	return nil, errors.New("there is nobody else")
}

func newKeeper(t *testing.T, l *lone) *lease.Keeper {
	t.Helper()
	k, err := lease.New(lease.Config{}, lease.Deps{State: l, Log: l, Raft: l, Peers: l})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestLeases runs a real keeper over the real state in virtual time.
func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := newRegistry(t)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { l.keeper.Run(ctx) })
		wg.Go(func() { l.keeper.Lead(ctx, 1) })
		defer wg.Wait()
		defer stop()

		inst := instance("web-1")
		inst.TTL = muster.TTL(10 * time.Second)
		mustRegister(t, r, inst)
		mustRegister(t, r, instance("forever"))
		key := muster.InstanceKey{Service: "web", ID: "web-1"}
		for range 5 {
			time.Sleep(8 * time.Second)
			b, err := r.Heartbeat(ctx, key, 0)
			if err != nil || b.TTL != inst.TTL || b.Next <= 0 || b.Next > muster.Duration(5*time.Second) {
				t.Fatalf("got %+v %v", b, err)
			}
		}
		shared, _, err := r.GrantLease(ctx, muster.Caller{}, muster.LeaseRequest{TTL: muster.TTL(30 * time.Second), Name: "host"})
		if err != nil {
			t.Fatal(err)
		}
		onShared := instance("web-2")
		onShared.TTL, onShared.LeaseID = 0, shared.ID
		mustRegister(t, r, onShared)
		newer := instance("newer")
		newer.TTL, newer.Incarnation = muster.TTL(10*time.Second), 7
		mustRegister(t, r, newer)
		got, _, err := r.Lease(ctx, shared.ID)
		if err != nil || len(got.Instances) != 1 || got.Remaining < muster.Duration(29*time.Second) {
			t.Errorf("got %+v %v", got, err)
		}
		beats, err := r.Heartbeats(ctx, muster.Heartbeats{
			Leases: []muster.LeaseID{shared.ID, muster.MakeLeaseID(99, 0)},
			Instances: []muster.InstanceBeat{
				{Service: "web", ID: "web-1", Incarnation: 1}, {Service: "web", ID: "forever"}, {Service: "web", ID: "nobody"},
				{Service: "web", ID: "newer", Incarnation: 6},
			},
		})
		if err != nil || beats.Renewed != 2 || !slices.Equal(beats.Fenced, []string{"default/web/newer"}) || !slices.Equal(beats.Unknown, []string{"99-0", "default/web/nobody"}) || !slices.Equal(beats.Persistent, []string{"default/web/forever"}) {
			t.Errorf("got %+v %v", beats, err)
		}

		time.Sleep(9 * time.Second) // web-1 was heard from 9 s ago
		if _, _, err := r.Instance(ctx, key, muster.ReadOptions{}); err != nil {
			t.Errorf("expired early: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := r.Heartbeat(ctx, key, 0); !errors.Is(err, muster.CodeUnknownInstance) {
			t.Errorf("a beat for what is gone: got %v", err)
		}
		if _, err := r.RevokeLease(ctx, muster.Caller{}, shared.ID); err != nil {
			t.Error(err)
		}
		if _, err := r.HeartbeatLease(ctx, shared.ID); !errors.Is(err, muster.CodeUnknownLease) {
			t.Errorf("a beat for a revoked lease: got %v", err)
		}
		if _, _, err := r.Lease(ctx, shared.ID); !errors.Is(err, muster.CodeUnknownLease) {
			t.Errorf("a revoked lease: got %v", err)
		}
		v, _, err := r.Service(ctx, web, nil, muster.ReadOptions{})
		if err != nil || len(v.Instances) != 1 || v.Instances[0].ID != "forever" {
			t.Errorf("got %+v %v", v, err)
		}
		if _, err := r.Heartbeats(ctx, muster.Heartbeats{Leases: make([]muster.LeaseID, 1001)}); !errors.Is(err, muster.CodeBodyTooLarge) {
			t.Errorf("got %v", err)
		}
	})
}
