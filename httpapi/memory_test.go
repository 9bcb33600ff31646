package httpapi_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

// memory is a registry of one node in memory: it keeps what it is told, counts an
// index up, and wakes who waits. Its clock stands still.
type memory struct {
	mu        sync.Mutex
	index     uint64
	views     map[muster.ServiceKey]*muster.View
	gone      map[muster.InstanceKey]bool
	events    []*muster.Event
	leases    []*muster.Lease
	settings  map[muster.ServiceKey]*muster.Settings
	changed   map[muster.ServiceKey]chan struct{}
	anything  chan struct{}
	confirmed uint64 // what the leader has confirmed; at least index
	applied   chan struct{}
	failure   error // what every call answers, if set
	blocks    bool  // writes wait for their context
	panics    bool
	reads     int
	// streams, if set, is what open streams are told; closed counts those that
	// were closed.
	streams chan string
	closed  int
	backup  []byte
	// ungoverned: the governor is off.
	ungoverned bool
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newMemory() *memory {
	return &memory{
		views: map[muster.ServiceKey]*muster.View{}, gone: map[muster.InstanceKey]bool{},
		settings: map[muster.ServiceKey]*muster.Settings{},
		changed:  map[muster.ServiceKey]chan struct{}{}, anything: make(chan struct{}), applied: make(chan struct{}),
	}
}

func (m *memory) channel(k muster.ServiceKey) chan struct{} {
	if m.changed[k] == nil {
		m.changed[k] = make(chan struct{})
	}
	return m.changed[k]
}

// publish replaces the view of k; the caller holds m.mu and has raised the index.
func (m *memory) publish(k muster.ServiceKey, insts []*muster.Instance) {
	v := &muster.View{Namespace: k.Namespace, Service: k.Service, Index: m.index, Instances: insts}
	if len(insts) == 0 {
		v.Instances, v.EmptyReason = []*muster.Instance{}, muster.EmptyDeregistered
	}
	m.views[k] = v
	close(m.channel(k))
	delete(m.changed, k)
	close(m.anything)
	m.anything = make(chan struct{})
}

// raise moves the index without changing any view.
func (m *memory) raise(to uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index = to
	close(m.applied)
	m.applied = make(chan struct{})
}

func (m *memory) begin(ctx context.Context) error {
	if m.panics {
		panic("the registry broke")
	}
	if m.blocks {
		<-ctx.Done()
		return ctx.Err()
	}
	return m.failure
}

func (m *memory) Register(ctx context.Context, who muster.Caller, inst *muster.Instance, cond muster.Condition) (muster.Written, error) {
	if err := m.begin(ctx); err != nil {
		return muster.Written{}, err
	}
	if err := inst.Normalize(); err != nil {
		return muster.Written{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := muster.ServiceKey{Namespace: inst.Namespace, Service: inst.Service}
	v := m.views[k]
	var old *muster.Instance
	var rest []*muster.Instance
	if v != nil {
		old = v.Find(inst.ID)
		rest = slices.DeleteFunc(slices.Clone(v.Instances), func(i *muster.Instance) bool { return i.ID == inst.ID })
	}
	if err := check(old, cond); err != nil {
		return muster.Written{Index: m.index}, err
	}
	if old != nil && inst.Incarnation != 0 && inst.Incarnation < old.Incarnation {
		return muster.Written{Index: m.index}, muster.Errorf(muster.CodeFenced, "incarnation %d is below %d", inst.Incarnation, old.Incarnation)
	}
	if old != nil && old.SameSpec(inst) {
		return muster.Written{Index: m.index, Instance: old}, nil
	}
	m.index++
	inst.Status, inst.Routable, inst.StatusCause, inst.StatusSince = muster.StatusUp, inst.Weight > 0, muster.CauseRegistered, epoch
	inst.RegisteredAt, inst.CreateIndex, inst.ModifyIndex = epoch, m.index, m.index
	inst.LeaseID = muster.MakeLeaseID(m.index, 0)
	if old != nil {
		inst.CreateIndex, inst.Override = old.CreateIndex, old.Override
	}
	rest = append(rest, inst)
	slices.SortFunc(rest, func(a, b *muster.Instance) int { return strings.Compare(a.ID, b.ID) })
	m.publish(k, rest)
	m.note(inst, muster.EventRegistered, muster.CauseRegistered, who)
	return muster.Written{Index: m.index, Created: old == nil, Changed: true, Instance: inst}, nil
}

func check(old *muster.Instance, cond muster.Condition) error {
	switch {
	case cond.Absent && old != nil,
		cond.ModifyIndex > 0 && (old == nil || old.ModifyIndex != cond.ModifyIndex || cond.Place >= 0 && old.Place != cond.Place):
		return muster.Errorf(muster.CodePreconditionFailed, "the instance is not as the condition wants it")
	}
	return nil
}

func (m *memory) note(i *muster.Instance, t muster.EventType, cause muster.Cause, who muster.Caller) {
	m.events = append(m.events, &muster.Event{
		Index: m.index, Time: epoch, Type: t, Namespace: i.Namespace, Service: i.Service, ID: i.ID, Cause: cause, Actor: who.Actor, Reason: who.Reason,
	})
}

func (m *memory) RegisterBatch(ctx context.Context, who muster.Caller, insts []*muster.Instance) ([]muster.BatchItem, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	items := make([]muster.BatchItem, len(insts))
	for n, inst := range insts {
		items[n].Written, items[n].Err = m.Register(ctx, who, inst, muster.Condition{})
		items[n].Key = muster.InstanceKey{Namespace: inst.Namespace, Service: inst.Service, ID: inst.ID}
	}
	return items, nil
}

// change replaces an instance by what edit makes of its copy, nil to remove it.
func (m *memory) change(k muster.InstanceKey, cond muster.Condition, edit func(*muster.Instance) *muster.Instance) (muster.Written, *muster.Instance, error) {
	if err := k.Clean(); err != nil {
		return muster.Written{}, nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	sk := muster.ServiceKey{Namespace: k.Namespace, Service: k.Service}
	v := m.views[sk]
	var old *muster.Instance
	if v != nil {
		old = v.Find(k.ID)
	}
	if err := check(old, cond); err != nil {
		return muster.Written{Index: m.index}, nil, err
	}
	if old == nil {
		if m.gone[k] {
			return muster.Written{Index: m.index}, nil, nil
		}
		return muster.Written{Index: m.index}, nil, muster.Errorf(muster.CodeUnknownInstance, "nothing is known of %s", k)
	}
	m.index++
	made := *old
	made.ModifyIndex = m.index
	next := edit(&made)
	insts := slices.DeleteFunc(slices.Clone(v.Instances), func(i *muster.Instance) bool { return i.ID == k.ID })
	if next != nil {
		insts = append(insts, next)
		slices.SortFunc(insts, func(a, b *muster.Instance) int { return strings.Compare(a.ID, b.ID) })
	} else {
		m.gone[k] = true
	}
	m.publish(sk, insts)
	return muster.Written{Index: m.index, Changed: true, Instance: next}, &made, nil
}

func (m *memory) Deregister(ctx context.Context, who muster.Caller, k muster.InstanceKey, incarnation uint64, cond muster.Condition) (muster.Written, error) {
	if err := m.begin(ctx); err != nil {
		return muster.Written{}, err
	}
	w, old, err := m.change(k, cond, func(*muster.Instance) *muster.Instance { return nil })
	if old != nil {
		m.note(old, muster.EventDeregistered, muster.CauseDeregistered, who)
	}
	return w, err
}

func (m *memory) SetOverride(ctx context.Context, who muster.Caller, k muster.InstanceKey, o muster.Override) (muster.Written, error) {
	if err := m.begin(ctx); err != nil {
		return muster.Written{}, err
	}
	if err := o.Validate(); err != nil {
		return muster.Written{}, err
	}
	w, _, err := m.change(k, muster.Condition{}, func(i *muster.Instance) *muster.Instance {
		i.Override, i.Status, i.Routable = &o, o.Status, false
		return i
	})
	return w, err
}

func (m *memory) ClearOverride(ctx context.Context, who muster.Caller, k muster.InstanceKey) (muster.Written, error) {
	if err := m.begin(ctx); err != nil {
		return muster.Written{}, err
	}
	w, _, err := m.change(k, muster.Condition{}, func(i *muster.Instance) *muster.Instance {
		i.Override, i.Status, i.Routable = nil, muster.StatusUp, true
		return i
	})
	return w, err
}

// current waits for what o asks.
func (m *memory) current(ctx context.Context, o muster.ReadOptions) (muster.ReadInfo, error) {
	if err := m.begin(ctx); err != nil {
		return muster.ReadInfo{}, err
	}
	info := muster.ReadInfo{Stale: 42 * time.Millisecond}
	if o.Linearizable {
		info.Stale = 0
	}
	for {
		m.mu.Lock()
		index, confirmed, applied := m.index, max(m.confirmed, m.index), m.applied
		m.mu.Unlock()
		switch {
		case o.Cursor > confirmed:
			return info, muster.Errorf(muster.CodeCursorGone, "the index %d is ahead of the cluster's", o.Cursor)
		case o.MinIndex > index:
			return info, muster.Errorf(muster.CodeBehind, "this node has applied index %d", index)
		case o.MaxStale > 0 && o.MaxStale < info.Stale:
			return info, muster.Errorf(muster.CodeTooStale, "this node is %s behind", info.Stale)
		case o.Cursor <= index:
			return info, nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return info, ctx.Err()
		}
	}
}

func (m *memory) Service(ctx context.Context, k muster.ServiceKey, q *muster.Query, o muster.ReadOptions) (*muster.View, muster.ReadInfo, error) {
	info, err := m.current(ctx, o)
	if err == nil {
		k.Namespace, err = muster.CleanNamespace(k.Namespace)
	}
	if err == nil {
		k.Service, err = muster.CleanService(k.Service)
	}
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	info.Changed = m.channel(k)
	v := m.views[k]
	if v == nil {
		info.Index = m.index + 1
		return nil, info, muster.Errorf(muster.CodeUnknownService, "no service %s was ever registered", k)
	}
	info.Index = v.Index
	if !q.IsZero() {
		v = v.Filtered(q.Match)
	}
	return v, info, nil
}

func (m *memory) Instance(ctx context.Context, k muster.InstanceKey, o muster.ReadOptions) (*muster.Instance, muster.ReadInfo, error) {
	if err := k.Clean(); err != nil {
		return nil, muster.ReadInfo{}, err
	}
	v, info, err := m.Service(ctx, muster.ServiceKey{Namespace: k.Namespace, Service: k.Service}, nil, o)
	if err != nil {
		return nil, info, err
	}
	i := v.Find(k.ID)
	if i == nil {
		err = muster.Errorf(muster.CodeUnknownInstance, "nothing is known of %s", k)
	}
	return i, info, err
}

func (m *memory) Services(ctx context.Context, namespace, prefix string, o muster.ReadOptions) (*muster.Services, muster.ReadInfo, error) {
	info, err := m.current(ctx, o)
	if err == nil {
		namespace, err = muster.CleanNamespace(namespace)
	}
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info.Changed, info.Index = m.anything, max(m.index, 1)
	list := &muster.Services{Services: []muster.ServiceSummary{}}
	for k, v := range m.views {
		if k.Namespace == namespace && strings.HasPrefix(k.Service, prefix) {
			list.Services = append(list.Services, muster.ServiceSummary{
				Namespace: k.Namespace, Service: k.Service, Instances: len(v.Instances), Routable: v.Routable(), Index: v.Index,
			})
		}
	}
	slices.SortFunc(list.Services, func(a, b muster.ServiceSummary) int { return strings.Compare(a.Service, b.Service) })
	return list, info, nil
}

func (m *memory) Events(ctx context.Context, q muster.EventQuery, o muster.ReadOptions) (*muster.Events, muster.ReadInfo, error) {
	info, err := m.current(ctx, o)
	if err != nil {
		return nil, info, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info.Index = max(m.index, 1)
	out := &muster.Events{Index: info.Index, Events: []*muster.Event{}}
	for _, e := range m.events {
		if e.Index > q.Since && (q.Service == "" || e.Service == q.Service) && (q.Instance == "" || e.ID == q.Instance) {
			out.Events = append(out.Events, e)
		}
	}
	if len(out.Events) > q.Limit {
		out.Events, out.Truncated = out.Events[len(out.Events)-q.Limit:], true
	}
	return out, info, nil
}
