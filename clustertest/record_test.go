package clustertest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
	"github.com/muster-registry/muster/fsm"
)

// record is the committed log as the nodes applied it: the events of every entry,
// and the whole state wherever a node was given one (by a restore, by a snapshot
// of the leader's, or by its own at a start). A node that is given a snapshot
// skips entries; what one has skipped another has applied.
type record struct {
	mu      sync.Mutex
	entries map[uint64][]*muster.Event // guarded by mu, as all below
	states  map[uint64]picture
	resets  map[string]int // by the name of the node
	errs    []error

	sorted []uint64 // the indexes of entries; set by seal
}

// picture is the instances of a state, as JSON.
type picture map[muster.InstanceKey]string

func newRecord() *record {
	return &record{entries: map[uint64][]*muster.Event{}, states: map[uint64]picture{}, resets: map[string]int{}}
}

// follow has everything that m applies noted. It is called before m starts.
func (r *record) follow(m *clustertest.Member) {
	m.OnApplied = func(c fsm.Changes) {
		var all picture
		if c.Reset {
			all = picture{}
			for v := range m.Node().State().Views() {
				for _, i := range v.Instances {
					all[keyOf(i)] = encode(i)
				}
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.sorted != nil {
			return
		}
		if c.Reset {
			r.resets[m.Name]++
			r.note(m.Name, c.Index, all)
		}
		for _, e := range c.Entries {
			if before, ok := r.entries[e.Index]; !ok {
				r.entries[e.Index] = e.Events
			} else if encode(before) != encode(e.Events) {
				r.errs = append(r.errs, fmt.Errorf("%s applied %s at %d, another node %s", m.Name, encode(e.Events), e.Index, encode(before)))
			}
		}
	}
}

func (r *record) note(name string, index uint64, all picture) {
	if before, ok := r.states[index]; ok && !maps.Equal(before, all) {
		r.errs = append(r.errs, fmt.Errorf("%s was given a state of %d that another node does not have", name, index))
	}
	r.states[index] = all
}

func (r *record) resetsOf(m *clustertest.Member) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resets[m.Name]
}

// seal ends the recording; the methods below are called after it.
func (r *record) seal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sorted = slices.Sorted(maps.Keys(r.entries))
}

// after is the place of the first entry above index.
func (r *record) after(index uint64) int {
	return sort.Search(len(r.sorted), func(n int) bool { return r.sorted[n] > index })
}

// at is the state at an index: that of the latest whole state, and what came
// after it.
func (r *record) at(index uint64) picture {
	base, all := uint64(0), picture{}
	for i, p := range r.states {
		if i <= index && i > base {
			base, all = i, p
		}
	}
	all = maps.Clone(all)
	for n := r.after(base); n < len(r.sorted) && r.sorted[n] <= index; n++ {
		for _, e := range r.entries[r.sorted[n]] {
			k := muster.InstanceKey{Namespace: e.Namespace, Service: e.Service, ID: e.ID}
			switch {
			case e.ID == "": // of the service
			case e.Instance == nil:
				delete(all, k)
			default:
				all[k] = encode(e.Instance)
			}
		}
	}
	return all
}

// following is what a stream that carries the services that match is told next
// after index: the next entry that holds any of them, as the data of a change. 0:
// there is none.
func (r *record) following(index uint64, match func(service string) bool) (next uint64, data string) {
	for _, next := range r.sorted[r.after(index):] {
		var order []string
		by := map[string][]string{}
		for _, e := range r.entries[next] {
			if e.Namespace != muster.DefaultNamespace || !match(e.Service) {
				continue
			}
			if by[e.Service] == nil {
				order = append(order, e.Service)
			}
			by[e.Service] = append(by[e.Service], encode(e))
		}
		var b bytes.Buffer
		for _, service := range order {
			for _, e := range by[service] {
				if b.Len() > 0 {
					b.WriteByte(',')
				}
				b.WriteString(e)
			}
		}
		if b.Len() > 0 {
			return next, fmt.Sprintf(`{"index":%d,"events":[%s]}`, next, &b)
		}
	}
	return 0, ""
}

func keyOf(i *muster.Instance) muster.InstanceKey {
	return muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}
}

// encode is v as JSON; what is encoded here always can be.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
