package watch_test

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/watch"
)

// op is one operation of a log entry: register (or change) an instance, take one
// away, forget a service without instances, or replace the whole state.
type op struct {
	service string
	id      string
	version string // "": take away
	forget  bool
	restore bool
}

// logEntry is an entry of the log that all replicas apply.
type logEntry struct {
	raft uint64
	ops  []op
}

// replica is a registry small enough to be checked: one node's copy of the state,
// which it publishes as package fsm does, view by view and then the index.
type replica struct {
	clusterID string
	mu        sync.RWMutex
	views     map[muster.ServiceKey]*muster.View // guarded by mu
	index     atomic.Uint64
	floor     atomic.Uint64
	epoch     uint64

	age       atomic.Int64
	catching  atomic.Bool // not ready
	confirmed atomic.Uint64
	noLeader  atomic.Bool

	hub *watch.Hub // nil: nobody listens
	// shuffle makes room between the publishing of views for others to look.
	shuffle bool
}

func newReplica() *replica {
	r := &replica{clusterID: "c1", views: map[muster.ServiceKey]*muster.View{}}
	r.floor.Store(1)
	return r
}

func key(service string) muster.ServiceKey {
	return muster.ServiceKey{Namespace: muster.DefaultNamespace, Service: service}
}

func (r *replica) View(k muster.ServiceKey) *muster.View {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.views[k]
}

// Views reads view by view: what it yields need not be of one moment.
func (r *replica) Views() iter.Seq[*muster.View] {
	return func(yield func(*muster.View) bool) {
		r.mu.RLock()
		keys := slices.SortedFunc(maps.Keys(r.views), muster.ServiceKey.Compare)
		r.mu.RUnlock()
		for _, k := range keys {
			if r.shuffle {
				runtime.Gosched()
			}
			if v := r.View(k); v != nil && !yield(v) {
				return
			}
		}
	}
}

func (r *replica) Floor() uint64     { return r.floor.Load() }
func (r *replica) Index() uint64     { return r.index.Load() }
func (r *replica) ClusterID() string { return r.clusterID }

func (r *replica) Freshness() (time.Duration, bool) {
	return time.Duration(r.age.Load()), !r.catching.Load()
}

func (r *replica) Confirmed(context.Context) (uint64, error) {
	if r.noLeader.Load() {
		return 0, muster.Errorf(muster.CodeNoLeader, "no leader")
	}
	_, applied := muster.SplitIndex(r.Index())
	return max(r.confirmed.Load(), applied), nil
}

// apply applies a batch, publishes it and tells the hub.
func (r *replica) apply(entries ...logEntry) watch.Batch {
	b := r.publish(entries...)
	r.tell(b)
	return b
}

func (r *replica) tell(b watch.Batch) {
	if r.hub != nil {
		r.hub.Applied(b)
	}
}

// publish applies a batch and publishes it, but does not tell the hub.
func (r *replica) publish(entries ...logEntry) watch.Batch {
	next := maps.Clone(r.views) // only this goroutine writes
	floor := r.Floor()
	var b watch.Batch
	for _, e := range entries {
		b.Index = muster.MakeIndex(r.epoch, e.raft)
		var events []*muster.Event
		for _, o := range e.ops {
			switch {
			case o.restore:
				r.epoch++
				b.Index = muster.MakeIndex(r.epoch, e.raft)
				b.Entries, b.Reset, events, floor = nil, true, nil, b.Index
				restored(next, b.Index)
			case o.forget:
				if v := next[key(o.service)]; v != nil && len(v.Instances) == 0 {
					delete(next, v.Key())
					floor = max(floor, v.Index)
				}
			default:
				if ev := applyOp(next, o, b.Index); ev != nil {
					events = append(events, ev)
				}
			}
		}
		if len(events) > 0 && !b.Reset {
			b.Entries = append(b.Entries, watch.Entry{Index: b.Index, Events: events})
		}
	}
	r.show(next, floor, b.Index)
	return b
}

// install makes r what another replica is, as a snapshot of the leader's does.
func (r *replica) install(of *replica, index uint64, views map[muster.ServiceKey]*muster.View, floor uint64) {
	r.epoch, _ = muster.SplitIndex(index)
	r.show(views, floor, index)
	r.tell(watch.Batch{Index: index, Reset: true})
}

func (r *replica) show(next map[muster.ServiceKey]*muster.View, floor, index uint64) {
	r.floor.Store(floor)
	for _, k := range slices.SortedFunc(maps.Keys(next), muster.ServiceKey.Compare) {
		if r.views[k] != next[k] {
			r.set(k, next[k])
		}
	}
	for k := range r.views {
		if next[k] == nil {
			r.set(k, nil)
		}
	}
	r.index.Store(index)
	if r.shuffle {
		runtime.Gosched()
	}
}

func (r *replica) set(k muster.ServiceKey, v *muster.View) {
	r.mu.Lock()
	if v == nil {
		delete(r.views, k)
	} else {
		r.views[k] = v
	}
	r.mu.Unlock()
	if r.shuffle {
		runtime.Gosched()
	}
}

// restored gives all content one index, and leaves out what a backup of before
// would not hold: the services that are empty, and of the others the first
// instance.
func restored(views map[muster.ServiceKey]*muster.View, index uint64) {
	for k, v := range views {
		if len(v.Instances) < 2 {
			delete(views, k)
			continue
		}
		n := &muster.View{Namespace: v.Namespace, Service: v.Service, Index: index, Instances: []*muster.Instance{}}
		for _, i := range v.Instances[1:] {
			c := *i
			c.CreateIndex, c.ModifyIndex = index, index
			n.Instances = append(n.Instances, &c)
		}
		views[k] = n
	}
}

func applyOp(views map[muster.ServiceKey]*muster.View, o op, index uint64) *muster.Event {
	k := key(o.service)
	old := views[k]
	v := &muster.View{Namespace: k.Namespace, Service: k.Service, Index: index, Instances: []*muster.Instance{}}
	if old != nil {
		v.Instances = slices.Clone(old.Instances)
	}
	at, found := slices.BinarySearchFunc(v.Instances, o.id, func(i *muster.Instance, id string) int { return cmp.Compare(i.ID, id) })
	ev := &muster.Event{
		Index: index, Time: time.UnixMilli(int64(index)).UTC(), Namespace: k.Namespace, Service: k.Service, ID: o.id, Actor: "ip:127.0.0.1",
	}
	if o.version == "" {
		if !found {
			return nil
		}
		v.Instances = slices.Delete(v.Instances, at, at+1)
		if len(v.Instances) == 0 {
			v.EmptyReason = muster.EmptyDeregistered
		}
		ev.Type, ev.Cause = muster.EventDeregistered, muster.CauseDeregistered
		views[k] = v
		return ev
	}
	i := &muster.Instance{
		Namespace: k.Namespace, Service: k.Service, ID: o.id, Address: "10.0.0.1", Port: 80, Weight: 100, Version: o.version,
		Status: muster.StatusUp, Routable: true, CreateIndex: index, ModifyIndex: index,
	}
	ev.Type, ev.Cause, ev.Status, ev.Instance = muster.EventRegistered, muster.CauseRegistered, i.Status, i
	if found {
		ev.Type, ev.Cause = muster.EventUpdated, muster.CauseUpdated
		i.CreateIndex = v.Instances[at].CreateIndex
		v.Instances[at] = i
	} else {
		v.Instances = slices.Insert(v.Instances, at, i)
	}
	views[k] = v
	return ev
}
