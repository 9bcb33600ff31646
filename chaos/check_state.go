package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muster-registry/muster"
)

// shown is a view that somebody was shown.
type shown struct {
	service string
	index   uint64
	cells   []Cell
	record  int64
}

// checkState holds every view that anybody was shown, by whatever read, against the
// log: it is the state of its service at its index, and its index is that of an entry
// which changed the service.
func (c *checks) checkState() {
	by := map[string][]shown{}
	for _, s := range c.shown {
		by[s.service] = append(by[s.service], s)
	}
	for service, views := range by {
		slices.SortFunc(views, func(a, b shown) int {
			return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.record, b.record))
		})
		c.replay(service, views)
	}
	c.Views = len(c.shown)
}

// replay walks through the log of one service and through its views, both in the
// order of their indexes.
func (c *checks) replay(service string, views []shown) {
	entries := slices.Clone(c.log.services[service])
	for _, e := range c.log.restores {
		entries = append(entries, e.Index)
	}
	slices.Sort(entries)
	p := picture{service: service, cells: map[string]uint64{}, known: true}
	for _, v := range views {
		for len(entries) > 0 && entries[0] <= v.index {
			p.apply(c.log, entries[0])
			entries = entries[1:]
		}
		if v.index > c.log.end() {
			c.unsure("record %d shows %s at %d, and the log is known up to %d", v.record, service, v.index, c.log.end())
			return
		}
		if p.index != v.index {
			c.violate("state", []int64{v.record}, "%s is shown at %d, and last changed at %d", service, v.index, p.index)
			continue
		}
		if text := p.differs(v.cells); text != "" {
			c.violate("state", []int64{v.record, p.from}, "%s at %d: %s", service, v.index, text)
		}
		p.adopt(v)
	}
}

// picture is a service as the log has it. What a restore brought back the log does
// not say: the first view after it does, and all others have to agree.
type picture struct {
	service string
	index   uint64
	cells   map[string]uint64 // hashes by id; 0: not known
	known   bool
	from    int64 // the record that the state was taken from, where it was
}

func (p *picture) apply(l *ledger, index uint64) {
	p.index = index
	for _, e := range l.entries[index] {
		switch {
		case e.Service == "" && e.Cause == causeRestored:
			p.cells, p.known = map[string]uint64{}, false
		case e.Service != p.service || e.ID == "":
		case e.Type == string(muster.EventDeregistered), e.Type == string(muster.EventExpired):
			delete(p.cells, e.ID)
		default:
			p.cells[e.ID] = l.looks[e].hash
		}
	}
}

// differs says in what a view differs from the picture.
func (p *picture) differs(cells []Cell) string {
	if !p.known {
		return ""
	}
	var text []string
	left := maps.Clone(p.cells)
	for _, cell := range cells {
		want, ok := left[cell.ID]
		delete(left, cell.ID)
		switch {
		case !ok:
			text = append(text, fmt.Sprintf("%s (%s of %d) is shown, and is not there", cell.ID, cell.Value, cell.Modify))
		case want != 0 && want != cell.Hash:
			text = append(text, fmt.Sprintf("%s (%s of %d) is shown otherwise than it is", cell.ID, cell.Value, cell.Modify))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(left)) {
		text = append(text, id+" is there, and not shown")
	}
	return strings.Join(text, "; ")
}

func (p *picture) adopt(v shown) {
	if !p.known {
		p.known, p.cells = true, map[string]uint64{}
	}
	p.from = v.record
	for _, cell := range v.cells {
		if h, ok := p.cells[cell.ID]; h == 0 || !ok {
			p.cells[cell.ID] = cell.Hash
		}
	}
}

// checkFinal asks that in the end all nodes have the same: the same services, at the
// same indexes, with the same instances.
func (c *checks) checkFinal() {
	type node struct {
		list  *Record
		views map[string]*Record
	}
	nodes := map[int]*node{}
	for _, r := range c.reads {
		if r.Kind != KindFinal {
			continue
		}
		if nodes[r.Node] == nil || r.Service == "" {
			nodes[r.Node] = &node{list: r, views: map[string]*Record{}}
		}
		if r.Service != "" {
			nodes[r.Node].views[r.Service] = r
		}
	}
	order := slices.Sorted(maps.Keys(nodes))
	if len(order) == 0 {
		return
	}
	first := nodes[order[0]]
	equal := func(what string, a, b *Record) {
		switch {
		case a == nil || b == nil:
			c.violate("equal", nil, "%s is on one node and not on another", what)
		case a.Index != b.Index || !slices.Equal(a.Cells, b.Cells):
			c.violate("equal", []int64{a.ID, b.ID}, "%s: node %d has %d %+v, node %d %d %+v", what, a.Node, a.Index, a.Cells, b.Node, b.Index, b.Cells)
		}
	}
	for _, n := range order[1:] {
		equal("the list of services", first.list, nodes[n].list)
		for _, service := range slices.Sorted(maps.Keys(first.views)) {
			equal("service "+service, first.views[service], nodes[n].views[service])
		}
	}
	if !c.bounds.Short && len(order) < 2 {
		c.Invalid = append(c.Invalid, "fewer than two nodes gave their state in the end")
	}
}
