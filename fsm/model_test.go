package fsm_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// model is what api.md says of registering, deregistering and expiring, in the
// plainest form: one service, instances with a lease of their own.
type model struct {
	alive map[string]*modelInstance
	dead  map[string]modelTombstone
	index uint64 // of the last visible change; 0: never any
}

type modelInstance struct {
	version     string
	keepDown    bool
	incarnation uint64
	generation  uint64
	lease       bool
	down        bool
}

type modelTombstone struct {
	incarnation uint64
	deliberate  bool
}

type modelAnswer struct {
	code             muster.Code
	created, changed bool
}

func (m *model) register(id, version string, keepDown bool, incarnation, index uint64) modelAnswer {
	i, stone := m.alive[id], m.dead[id]
	_, remembered := m.dead[id]
	switch {
	case i != nil && incarnation != 0 && incarnation < i.incarnation,
		i == nil && incarnation != 0 && incarnation < stone.incarnation,
		i == nil && incarnation != 0 && remembered && stone.deliberate && incarnation == stone.incarnation:
		return modelAnswer{code: muster.CodeFenced}
	}
	if i != nil && i.lease && i.version == version && i.keepDown == keepDown && (incarnation == 0 || incarnation == i.incarnation) {
		i.generation = index
		return modelAnswer{}
	}
	next := &modelInstance{version: version, keepDown: keepDown, incarnation: incarnation, generation: index, lease: true}
	if incarnation == 0 {
		last := stone.incarnation
		if i != nil {
			last = i.incarnation
		}
		next.incarnation = last + 1
		if i != nil && i.version == version && i.keepDown == keepDown {
			next.incarnation = last
		}
	}
	m.alive[id], m.index = next, index
	delete(m.dead, id)
	return modelAnswer{created: i == nil, changed: true}
}

func (m *model) deregister(id string, incarnation, index uint64) modelAnswer {
	i := m.alive[id]
	if i == nil {
		stone, remembered := m.dead[id]
		if !remembered {
			return modelAnswer{code: muster.CodeUnknownInstance}
		}
		if incarnation == 0 || incarnation >= stone.incarnation {
			m.dead[id] = modelTombstone{max(incarnation, stone.incarnation), true}
		}
		return modelAnswer{}
	}
	if incarnation != 0 && incarnation < i.incarnation {
		return modelAnswer{code: muster.CodeFenced}
	}
	delete(m.alive, id)
	m.dead[id] = modelTombstone{max(incarnation, i.incarnation), true}
	m.index = index
	return modelAnswer{changed: true}
}

func (m *model) expire(id string, generation, index uint64) (fsm.Outcome, bool) {
	i := m.alive[id]
	switch {
	case i == nil || !i.lease:
		return fsm.OutcomeGone, false
	case i.generation != generation:
		return fsm.OutcomeSkipped, false
	}
	m.index = index
	if i.keepDown {
		i.lease, i.down = false, true
		return fsm.OutcomeDone, true
	}
	delete(m.alive, id)
	m.dead[id] = modelTombstone{i.incarnation, false}
	return fsm.OutcomeDone, true
}

// TestAgainstModel plays single operations to the FSM and to the model.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mc := newMachine(t)
		mc.next = 2
		m := &model{alive: map[string]*modelInstance{}, dead: map[string]modelTombstone{}}
		leases := map[string]fsm.LeaseGen{} // the last known of each
		for range rapid.IntRange(1, 50).Draw(rt, "operations") {
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "id")
			incarnation := rapid.Uint64Range(0, 6).Draw(rt, "incarnation")
			before := mc.fsm.View(webKey)
			index := mc.next
			var got, want modelAnswer
			switch rapid.IntRange(0, 4).Draw(rt, "kind") {
			case 0:
				r := mc.do(fsm.Deregister{Key: key("web", id), Incarnation: incarnation})
				got, want = answer(r), m.deregister(id, incarnation, index)
			case 1:
				l := leases[id]
				if rapid.IntRange(0, 3).Draw(rt, "old") == 0 {
					l.Generation--
				}
				r := mc.do(fsm.Expire{Term: 1, Leases: []fsm.LeaseGen{l}})
				outcome, changed := m.expire(id, l.Generation, index)
				if r.Outcomes[0] != outcome {
					rt.Fatalf("expire %s: got %v, want %v", id, r.Outcomes[0], outcome)
				}
				got, want = answer(r), modelAnswer{changed: changed}
			default:
				version := rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "version")
				keep := rapid.Bool().Draw(rt, "keep down")
				r := mc.do(fsm.Register{Instance: with(web(id), func(i *muster.Instance) {
					i.Version, i.Incarnation = version, incarnation
					if keep {
						i.OnExpiry = muster.ExpiryDown
					}
				})})
				got, want = answer(r), m.register(id, version, keep, incarnation, index)
			}
			if got != want {
				rt.Fatalf("at %d: got %+v, want %+v", index, got, want)
			}
			compare(rt, mc.fsm, m)
			if after := mc.fsm.View(webKey); (after != before) != want.changed {
				rt.Fatalf("at %d: view replaced %t, changed %t", index, after != before, want.changed)
			}
			if l, ok := mc.fsm.LeaseOf(key("web", id)); ok {
				known, _ := mc.fsm.Lease(l)
				leases[id] = fsm.LeaseGen{ID: l, Generation: known.Generation}
			}
		}
	})
}

func answer(r fsm.Result) modelAnswer {
	a := modelAnswer{created: r.Created, changed: r.Changed}
	if r.Err != nil {
		a.code = r.Err.Code
	}
	return a
}

func compare(rt *rapid.T, f *fsm.FSM, m *model) {
	v := f.View(webKey)
	if v == nil {
		if m.index != 0 {
			rt.Fatalf("nothing is known, the model has changed at %d", m.index)
		}
		return
	}
	if v.Index != m.index || len(v.Instances) != len(m.alive) {
		rt.Fatalf("view of %d at %d, want %d at %d", len(v.Instances), v.Index, len(m.alive), m.index)
	}
	for _, i := range v.Instances {
		w := m.alive[i.ID]
		if w == nil {
			rt.Fatalf("%s is there and should not be", i.ID)
		}
		if i.Version != w.version || i.Incarnation != w.incarnation || (i.Status == muster.StatusDown) != w.down || (i.LeaseID != 0) != w.lease {
			rt.Fatalf("%s is %+v, want %+v", i.ID, i, w)
		}
		if l, ok := f.Lease(i.LeaseID); ok != w.lease || ok && l.Generation != w.generation {
			rt.Fatalf("%s: lease %+v, want generation %d", i.ID, l, w.generation)
		}
	}
}
