package registry_test

import (
	"context"
	"encoding"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
	"github.com/muster-registry/muster/registry"
)

// lone is a consensus of one: what is proposed is applied at once, to the real
// state machine. Its knobs stand for what a cluster may be.
type lone struct {
	state  *fsm.FSM
	keeper *lease.Keeper

	mu    sync.Mutex
	index uint64        // guarded by mu
	fail  error         // guarded by mu: what Propose and ReadIndex answer instead
	stale time.Duration // guarded by mu
	ready bool          // guarded by mu
	asked int           // guarded by mu: how often Refresh was called
	vital int           // guarded by mu: operations that were proposed as vital
}

func (l *lone) ProposeVital(ctx context.Context, ops [][]byte) []muster.Outcome {
	l.mu.Lock()
	l.vital += len(ops)
	l.mu.Unlock()
	return l.Propose(ctx, ops)
}

func (l *lone) Propose(_ context.Context, ops [][]byte) []muster.Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]muster.Outcome, len(ops))
	if l.fail != nil {
		for n := range out {
			out[n].Err = l.fail
		}
		return out
	}
	l.index++
	entry := &raft.Log{Index: l.index, Term: 1, Type: raft.LogCommand, Data: l.state.Pack(ops, time.Now())}
	results := l.state.Apply(entry).([]encoding.BinaryAppender)
	for n, r := range results {
		out[n].Result, out[n].Err = r.AppendBinary(nil)
	}
	return out
}

func (l *lone) ReadIndex(context.Context) error { l.mu.Lock(); defer l.mu.Unlock(); return l.fail }
func (l *lone) Confirmed(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.index, l.fail
}
func (l *lone) Freshness() (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stale, l.ready
}
func (l *lone) Refresh(_ context.Context, most time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if l.fail != nil {
		return muster.Errorf(muster.CodeTooStale, "nobody to ask")
	}
	l.stale = 0
	return nil
}

func (l *lone) set(fn func(*lone)) { l.mu.Lock(); defer l.mu.Unlock(); fn(l) }

func newRegistry(t *testing.T) (*registry.Registry, *lone) {
	t.Helper()
	feed := &feed{}
	state, err := fsm.New(fsm.Config{Fatal: func(err error) { t.Error(err) }, Listeners: []fsm.Listener{feed}})
	if err != nil {
		t.Fatal(err)
	}
	l := &lone{state: state, ready: true}
	l.keeper = newKeeper(t, l)
	feed.keeper = l.keeper
	r, err := registry.New(registry.Config{}, registry.Deps{State: state, Consensus: l, Keeper: feed.keeper})
	if err != nil {
		t.Fatal(err)
	}
	return r, l
}

var web = muster.ServiceKey{Namespace: "default", Service: "web"}

func instance(id string) *muster.Instance {
	return &muster.Instance{Service: "web", ID: id, Address: "10.0.0.5", Port: 80, Weight: 100, TTL: muster.NoTTL}
}

func mustRegister(t *testing.T, r *registry.Registry, i *muster.Instance) muster.Written {
	t.Helper()
	w, err := r.Register(t.Context(), muster.Caller{Actor: "ip:127.0.0.1"}, i, muster.Condition{})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestRegisterReadDeregister(t *testing.T) {
	r, l := newRegistry(t)
	w := mustRegister(t, r, instance("web-1"))
	if !w.Created || w.Index == 0 || w.Instance == nil || w.Instance.Status != muster.StatusUp {
		t.Fatalf("got %+v", w)
	}
	again := mustRegister(t, r, instance("web-1"))
	if again.Created || again.Changed || again.Instance.ModifyIndex != w.Instance.ModifyIndex {
		t.Errorf("an identical registration changed something: %+v", again)
	}
	v, info, err := r.Service(t.Context(), muster.ServiceKey{Service: "WEB"}, nil, muster.ReadOptions{})
	if err != nil || len(v.Instances) != 1 || info.Index != w.Index || info.Changed == nil {
		t.Fatalf("got %+v %+v %v", v, info, err)
	}
	k := muster.InstanceKey{Service: "web", ID: "web-1"}
	i, _, err := r.Instance(t.Context(), k, muster.ReadOptions{})
	if err != nil || i.ID != "web-1" {
		t.Errorf("got %+v %v", i, err)
	}
	if _, err := r.SetOverride(t.Context(), muster.Caller{Actor: "ops", Reason: "swap"}, k, muster.Override{Status: muster.StatusMaintenance}); err != nil {
		t.Error(err)
	}
	i, _, _ = r.Instance(t.Context(), k, muster.ReadOptions{})
	if i.Status != muster.StatusMaintenance || i.Routable || i.Override.Reason != "swap" || i.Override.Actor != "ops" {
		t.Errorf("got %+v", i)
	}
	if _, err := r.ClearOverride(t.Context(), muster.Caller{}, k); err != nil {
		t.Error(err)
	}
	if l.vital != 0 {
		t.Error("a registration goes before others")
	}
	if _, err := r.Deregister(t.Context(), muster.Caller{Actor: "ip:1.2.3.4", Reason: "gone"}, k, 0, muster.Condition{}); err != nil || l.vital != 1 {
		t.Error(err)
	}
	v, _, err = r.Service(t.Context(), web, nil, muster.ReadOptions{})
	if err != nil || len(v.Instances) != 0 || v.EmptyReason != muster.EmptyDeregistered {
		t.Errorf("got %+v %v", v, err)
	}
	events, _, err := r.Events(t.Context(), muster.EventQuery{Service: "web", Instance: "web-1"}, muster.ReadOptions{})
	if err != nil || len(events.Events) != 4 {
		t.Fatalf("got %+v %v", events, err)
	}
	if last := events.Events[3]; last.Cause != muster.CauseDeregistered || last.Actor != "ip:1.2.3.4" || last.Reason != "gone" {
		t.Errorf("got %+v", last)
	}
}

func TestUnknowns(t *testing.T) {
	r, _ := newRegistry(t)
	_, info, err := r.Service(t.Context(), web, nil, muster.ReadOptions{})
	if !errors.Is(err, muster.CodeUnknownService) || info.Index == 0 || info.Changed == nil {
		t.Errorf("got %+v %v", info, err)
	}
	if _, err := r.Deregister(t.Context(), muster.Caller{}, muster.InstanceKey{Service: "web", ID: "x"}, 0, muster.Condition{}); !errors.Is(err, muster.CodeUnknownInstance) {
		t.Errorf("got %v", err)
	}
	mustRegister(t, r, instance("web-1"))
	select {
	case <-info.Changed:
	default:
		t.Error("whoever waits for an unknown service is not woken when it appears")
	}
	if _, _, err := r.Instance(t.Context(), muster.InstanceKey{Service: "web", ID: "x"}, muster.ReadOptions{}); !errors.Is(err, muster.CodeUnknownInstance) {
		t.Errorf("got %v", err)
	}
}

func TestBatch(t *testing.T) {
	r, _ := newRegistry(t)
	bad := instance("web-2")
	bad.Port = 0
	items, err := r.RegisterBatch(t.Context(), muster.Caller{}, []*muster.Instance{instance("web-1"), bad, instance("web-3")})
	if err != nil || len(items) != 3 {
		t.Fatalf("got %+v %v", items, err)
	}
	if items[0].Err != nil || !items[0].Created || items[2].Err != nil || !errors.Is(items[1].Err, muster.CodeInvalidPort) || items[1].Key.ID != "web-2" {
		t.Errorf("got %+v", items)
	}
	if _, err := r.RegisterBatch(t.Context(), muster.Caller{}, make([]*muster.Instance, muster.MaxBatchItems+1)); !errors.Is(err, muster.CodeBodyTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestFilters(t *testing.T) {
	r, _ := newRegistry(t)
	for n, zone := range []string{"a", "b", "a"} {
		i := instance("web-" + string(rune('1'+n)))
		i.Zone, i.Tags, i.Meta = zone, []string{"t" + zone}, map[string]string{"team": zone}
		mustRegister(t, r, i)
	}
	tests := []struct {
		q    muster.Query
		want string
	}{
		{muster.Query{Zone: "a"}, "web-1 web-3"},
		{muster.Query{Filter: `zone == "b"`}, "web-2"},
		{muster.Query{Filter: `"ta" in tags and id != "web-1"`}, "web-3"},
		{muster.Query{Filter: `meta.team == "a"`, Tags: []string{"ta"}}, "web-1 web-3"},
		{muster.Query{Filter: `meta.absent == "x"`}, ""},
		{muster.Query{Filter: `id matches "web-[12]"`}, "web-1 web-2"},
		{muster.Query{Filter: `port == 80 and weight != 99 and routable == true`}, "web-1 web-2 web-3"},
		{muster.Query{Filter: `not (zone == "a")`}, "web-2"},
	}
	for _, tt := range tests {
		v, _, err := r.Service(t.Context(), web, &tt.q, muster.ReadOptions{})
		if err != nil {
			t.Errorf("%+v: %v", tt.q, err)
			continue
		}
		var ids []string
		for _, i := range v.Instances {
			ids = append(ids, i.ID)
		}
		if got := strings.Join(ids, " "); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.q, got, tt.want)
		}
		if len(ids) == 0 && v.EmptyReason != muster.EmptyFiltered {
			t.Errorf("%+v: an empty list gives the reason %q", tt.q, v.EmptyReason)
		}
		same, _, _ := r.Service(t.Context(), web, &tt.q, muster.ReadOptions{})
		if same != v {
			t.Errorf("%+v: the filtered view is not shared", tt.q)
		}
	}
	for _, bad := range []string{`zone ==`, `nonsense == "a"`, `port == "x"`, strings.Repeat("(", 400), strings.Repeat("x", 2000), `id matches "["`, `any tags as x { y == "1" }`} {
		if _, _, err := r.Service(t.Context(), web, &muster.Query{Filter: bad}, muster.ReadOptions{}); !errors.Is(err, muster.CodeInvalidFilter) {
			t.Errorf("%.40q: got %v, want invalid_filter", bad, err)
		}
	}
}

func TestReadGates(t *testing.T) {
	r, l := newRegistry(t)
	w := mustRegister(t, r, instance("web-1"))
	read := func(o muster.ReadOptions) error {
		_, _, err := r.Service(t.Context(), web, nil, o)
		return err
	}
	l.set(func(l *lone) { l.ready = false })
	if err := read(muster.ReadOptions{}); !errors.Is(err, muster.CodeCatchingUp) {
		t.Errorf("not ready: got %v", err)
	}
	if err := read(muster.ReadOptions{Linearizable: true}); err != nil {
		t.Errorf("a linearizable read does not need to be ready: %v", err)
	}
	l.set(func(l *lone) { l.ready, l.stale = true, 3*time.Second })
	_, info, err := r.Service(t.Context(), web, nil, muster.ReadOptions{})
	if err != nil || info.Stale != 3*time.Second {
		t.Errorf("got %+v %v", info, err)
	}
	_, info, _ = r.Service(t.Context(), web, nil, muster.ReadOptions{Linearizable: true})
	if info.Stale != 0 {
		t.Errorf("a linearizable read says it is %s old", info.Stale)
	}
	if err := read(muster.ReadOptions{MaxStale: 5 * time.Second}); err != nil || l.asked != 0 {
		t.Errorf("fresh enough: %v, asked %d times", err, l.asked)
	}
	if err := read(muster.ReadOptions{MaxStale: time.Second}); err != nil || l.asked != 1 {
		t.Errorf("too old, can be refreshed: %v, asked %d times", err, l.asked)
	}
	l.set(func(l *lone) { l.stale, l.fail = 3*time.Second, muster.Errorf(muster.CodeNoLeader, "gone") })
	if err := read(muster.ReadOptions{MaxStale: time.Second}); !errors.Is(err, muster.CodeTooStale) {
		t.Errorf("got %v", err)
	}
	if err := read(muster.ReadOptions{Linearizable: true}); !errors.Is(err, muster.CodeNoLeader) {
		t.Errorf("got %v", err)
	}
	if err := read(muster.ReadOptions{MinIndex: w.Index}); err != nil {
		t.Errorf("an index that was reached: %v", err)
	}
	if _, err := r.Register(t.Context(), muster.Caller{}, instance("web-9"), muster.Condition{}); !errors.Is(err, muster.CodeNoLeader) {
		t.Errorf("got %v", err)
	}
}

func TestCursorAhead(t *testing.T) {
	r, l := newRegistry(t)
	w := mustRegister(t, r, instance("web-1"))
	read := func(ctx context.Context, cursor uint64) error {
		_, _, err := r.Service(ctx, web, nil, muster.ReadOptions{Cursor: cursor})
		return err
	}
	if err := read(t.Context(), w.Index); err != nil {
		t.Errorf("a cursor that was reached: %v", err)
	}
	if err := read(t.Context(), w.Index+1); !errors.Is(err, muster.CodeCursorGone) {
		t.Errorf("a cursor nobody has reached: got %v", err)
	}
	l.set(func(l *lone) { l.fail = muster.Errorf(muster.CodeNoLeader, "gone") })
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := read(ctx, w.Index+1); !errors.Is(err, muster.CodeBehind) {
		t.Errorf("a cursor nobody can judge: got %v", err)
	}
}

func TestMinIndexWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newRegistry(t)
		w := mustRegister(t, r, instance("web-1"))
		start := time.Now()
		_, _, err := r.Service(t.Context(), web, nil, muster.ReadOptions{MinIndex: w.Index + 1, Wait: 2 * time.Second})
		if !errors.Is(err, muster.CodeBehind) || time.Since(start) != 2*time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			v, _, err := r.Service(t.Context(), web, nil, muster.ReadOptions{MinIndex: w.Index + 1})
			if err != nil || len(v.Instances) != 2 {
				t.Errorf("got %+v %v", v, err)
			}
		})
		synctest.Wait()
		mustRegister(t, r, instance("web-2"))
		wg.Wait()
	})
}
