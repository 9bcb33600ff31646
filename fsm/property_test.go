package fsm_test

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// TestSameLogSameBytes: whatever the batches, the same log gives the same bytes;
// and so does a snapshot taken anywhere on the way, restored, and continued.
func TestSameLogSameBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newGenerator(newMachine(t), rt)
		for range rapid.IntRange(1, 60).Draw(rt, "entries") {
			g.step()
			if g.yes("configuration entry", 10) {
				l := &raft.Log{Index: g.next, Term: g.term, Type: raft.LogConfiguration}
				g.fsm.ApplyBatch([]*raft.Log{l})
				g.log, g.next = append(g.log, l), g.next+1
			}
		}
		want := snapshotOf(t, g.fsm)
		for copies := range 3 {
			other := newMachine(t, &recorder{}).fsm
			for rest := g.log; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
				for _, r := range other.ApplyBatch(rest[:n]) {
					if err, failed := r.(error); failed {
						rt.Fatalf("copy %d: %v", copies, err)
					}
				}
				if rest = rest[n:]; g.yes("restart", 3) {
					other = reload(t, snapshotOf(t, other), &recorder{})
				}
			}
			if got := snapshotOf(t, other); !bytes.Equal(got, want) {
				rt.Fatalf("copy %d: snapshot differs:\n got %q\nwant %q", copies, got, want)
			}
			if got, want := pictureOf(other), pictureOf(g.fsm); !sameViews(got, want) {
				rt.Fatalf("copy %d: views differ:\n got %v\nwant %v", copies, got, want)
			}
		}
	})
}

func sameViews(a, b map[muster.ServiceKey]*muster.View) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		w := b[k]
		if w == nil || !bytes.Equal(v.JSON(), w.JSON()) {
			return false
		}
	}
	return true
}

// seen is what a reader has seen of a service.
type seen struct {
	view    *muster.View
	changed <-chan struct{}
	index   uint64
}

// TestWhatReadersSee: no index goes back, a view is replaced exactly when its
// content changes, and channels close exactly then.
func TestWhatReadersSee(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newGenerator(newMachine(t), rt)
		before := map[muster.ServiceKey]seen{}
		_, listed, listChanged := g.fsm.Services("", "")
		for range rapid.IntRange(1, 60).Draw(rt, "entries") {
			epoch, _ := muster.SplitIndex(g.fsm.Index())
			g.step()
			after, _ := muster.SplitIndex(g.fsm.Index())
			for _, ns := range []string{"default", "other"} {
				for _, name := range []string{"web", "db", "api"} {
					k := muster.ServiceKey{Namespace: ns, Service: name}
					before[k] = checkRead(rt, g.fsm, k, before[k], epoch != after)
				}
			}
			_, index, changed := g.fsm.Services("", "")
			if index < listed || isClosed(listChanged) != (index != listed) {
				rt.Fatalf("list went from %d to %d, closed %t", listed, index, isClosed(listChanged))
			}
			listed, listChanged = index, changed
			checkState(rt, g.fsm)
		}
	})
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func checkRead(rt *rapid.T, f *fsm.FSM, k muster.ServiceKey, was seen, restored bool) seen {
	v, changed := f.Watch(k)
	now := seen{view: v, changed: changed, index: f.Floor()}
	if v != nil {
		now.index = v.Index
	}
	switch {
	case now.index < was.index:
		rt.Fatalf("%s: index went from %d to %d", k, was.index, now.index)
	case now.index > f.Index() && f.Index() > 0:
		rt.Fatalf("%s: index %d is ahead of %d", k, now.index, f.Index())
	case was.changed == nil || restored:
	case (v != was.view) != isClosed(was.changed) && was.view != nil:
		rt.Fatalf("%s: view replaced %t, channel closed %t", k, v != was.view, isClosed(was.changed))
	case v != was.view && !isClosed(was.changed):
		rt.Fatalf("%s appeared and nobody was woken", k)
	case v != was.view && was.view != nil && v.Index == was.view.Index:
		rt.Fatalf("%s: view replaced at the same index %d", k, v.Index)
	}
	return now
}

// checkState checks what has to hold of any state.
func checkState(rt *rapid.T, f *fsm.FSM) {
	held := map[muster.LeaseID]int{}
	var summaries []muster.ServiceSummary
	for v := range f.Views() {
		suspects, routable := 0, 0
		for n, i := range v.Instances {
			if n > 0 && v.Instances[n-1].ID >= i.ID {
				rt.Fatalf("%s is not sorted", v.Key())
			}
			if i.Routable != (i.Status == muster.StatusUp && i.Weight > 0) {
				rt.Fatalf("%s is %s of weight %d, routable %t", i.ID, i.Status, i.Weight, i.Routable)
			}
			if i.Routable {
				routable++
			}
			if i.Suspect {
				suspects++
			}
			if i.ModifyIndex > v.Index || i.CreateIndex > i.ModifyIndex {
				rt.Fatalf("%s: created %d modified %d in a view of %d", i.ID, i.CreateIndex, i.ModifyIndex, v.Index)
			}
			if i.LeaseID != 0 {
				held[i.LeaseID]++
				l, ok := f.Lease(i.LeaseID)
				if !ok || !slices.Contains(l.Instances, muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}) {
					rt.Fatalf("%s hangs on %s, which is %+v", i.ID, i.LeaseID, l)
				}
			}
			if fsm.Expired(i) && i.Routable {
				rt.Fatalf("%s is down by expiry and routable", i.ID)
			}
		}
		if v.Protected != (suspects > 0) || (v.EmptyReason != "") != (len(v.Instances) == 0) {
			rt.Fatalf("%s: protected %t with %d suspects, empty reason %q of %d", v.Key(), v.Protected, suspects, v.EmptyReason, len(v.Instances))
		}
		if len(v.Instances) > 0 {
			summaries = append(summaries, muster.ServiceSummary{
				Namespace: v.Namespace, Service: v.Service, Instances: len(v.Instances), Routable: routable, Index: v.Index,
			})
		}
	}
	for l := range f.Leases {
		if l.Instances != held[l.ID] || !l.Shared && l.Instances != 1 || l.Generation > f.Index() {
			rt.Fatalf("lease %+v holds %d", l, held[l.ID])
		}
		delete(held, l.ID)
	}
	if len(held) > 0 {
		rt.Fatalf("instances hang on leases that are not there: %v", held)
	}
	if got, _, _ := f.Services("", ""); !slices.Equal(got, summaries) {
		rt.Fatalf("services: got %v, want %v", got, summaries)
	}
}

// mirror is a listener that keeps a copy of the state by what it is told.
type mirror struct {
	f         *fsm.FSM
	instances map[muster.InstanceKey]*muster.Instance
	leases    map[muster.LeaseID]fsm.LeaseRecord
	index     uint64
}

func (m *mirror) Applied(c fsm.Changes) {
	m.index = c.Index
	if c.Reset {
		m.load()
		return
	}
	for _, e := range c.Entries {
		for _, ev := range e.Events {
			k := muster.InstanceKey{Namespace: ev.Namespace, Service: ev.Service, ID: ev.ID}
			if m.instances[k] = ev.Instance; ev.Instance == nil {
				delete(m.instances, k)
			}
		}
	}
	for _, l := range c.Leases {
		if m.leases[l.ID] = l.LeaseRecord; l.Gone {
			delete(m.leases, l.ID)
		}
	}
}

func (m *mirror) load() {
	m.instances, m.leases = map[muster.InstanceKey]*muster.Instance{}, map[muster.LeaseID]fsm.LeaseRecord{}
	for v := range m.f.Views() {
		for _, i := range v.Instances {
			m.instances[muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}] = i
		}
	}
	for l := range m.f.Leases {
		m.leases[l.ID] = l
	}
}

// TestListenerSeesAll: what listeners are told adds up to the state.
func TestListenerSeesAll(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &mirror{instances: map[muster.InstanceKey]*muster.Instance{}, leases: map[muster.LeaseID]fsm.LeaseRecord{}}
		g := newGenerator(newMachine(t, m), rt)
		m.f = g.fsm
		var pending []*raft.Log
		lead := newMachine(t)
		g2 := newGenerator(lead, rt)
		for range rapid.IntRange(1, 60).Draw(rt, "entries") {
			g2.step()
			pending = append(pending, lead.log[len(lead.log)-1])
			if g2.yes("flush", 2) {
				g.fsm.ApplyBatch(pending)
				pending = nil
				checkMirror(rt, m)
			}
		}
		g.fsm.ApplyBatch(pending)
		checkMirror(rt, m)
	})
}

func checkMirror(rt *rapid.T, m *mirror) {
	told := *m
	m.load()
	defer func() { m.instances, m.leases = told.instances, told.leases }()
	if !reflect.DeepEqual(told.instances, m.instances) {
		rt.Fatalf("instances:\n told %v\n have %v", told.instances, m.instances)
	}
	if !reflect.DeepEqual(told.leases, m.leases) {
		rt.Fatalf("leases:\n told %+v\n have %+v", told.leases, m.leases)
	}
	if m.index != 0 && told.index != m.f.Index() {
		rt.Fatalf("told of index %d, is at %d", told.index, m.f.Index())
	}
}
