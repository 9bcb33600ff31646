package client

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/filter"
)

const (
	// maxPorts is for how many named ports a part of a view is kept with it.
	maxPorts = 64
	// maxRecent is how many queries are found without making their key: programs pick
	// by few.
	maxRecent = 8
)

// narrower makes filters of queries. The zero narrower is ready; it is safe for
// concurrent use.
type narrower struct {
	cache  filter.Cache
	recent atomic.Pointer[[]compiled] // immutable, at most maxRecent, the latest first
}

// compiled is a query, the narrower's own copy, and the filter of it.
type compiled struct {
	query  muster.Query
	filter *filter.Filter
}

// filter is the filter of q.
func (n *narrower) filter(q *muster.Query) (*filter.Filter, error) {
	var recent []compiled
	if p := n.recent.Load(); p != nil {
		recent = *p
	}
	for k := range recent {
		if same(&recent[k].query, q) {
			return recent[k].filter, nil
		}
	}
	own := *q
	own.Tags, own.Meta = slices.Clone(q.Tags), maps.Clone(q.Meta)
	if q.Routable != nil {
		own.Routable = new(bool)
		*own.Routable = *q.Routable
	}
	f, err := n.cache.Compile(&own)
	if err != nil {
		return nil, err
	}
	next := append([]compiled{{own, f}}, recent[:min(len(recent), maxRecent-1)]...)
	n.recent.Store(&next) // who stores at the same time is found the next time
	return f, nil
}

// same reports whether two queries are written alike.
func same(a, b *muster.Query) bool {
	return a.Status == b.Status && a.Zone == b.Zone && a.Version == b.Version && a.Filter == b.Filter &&
		(a.Routable == nil) == (b.Routable == nil) && (a.Routable == nil || *a.Routable == *b.Routable) &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.Meta, b.Meta)
}

// ported are the parts of a view with a named port.
type ported struct {
	mu     sync.Mutex
	byName map[string]*muster.View // guarded by mu, at most maxPorts
}

// narrowed is the part of v that by means, made once for all who mean the same.
func (c *Client) narrowed(v *muster.View, by *PickBy) (*muster.View, error) {
	if by.Where != nil {
		f, err := c.narrow.filter(by.Where)
		if err != nil {
			return nil, err
		}
		if v, err = f.Apply(v); err != nil {
			return nil, err
		}
	}
	if by.Port == "" || len(v.Instances) == 0 {
		return v, nil
	}
	part := withPort(v, by.Port)
	if len(part.Instances) == 0 {
		return nil, muster.Errorf(muster.CodeNoInstance, "no instance of service %s has a port named %q", v.Service, by.Port).
			WithHint("instances name their ports in \"ports\", beside \"port\"")
	}
	return part, nil
}

// withPort is the part of v with a named port.
func withPort(v *muster.View, name string) *muster.View {
	kept := v.Derive("client.ported", func(*muster.View) any { return &ported{byName: map[string]*muster.View{}} }).(*ported)
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if got := kept.byName[name]; got != nil {
		return got
	}
	made := v.Filtered(func(i *muster.Instance) bool { _, ok := i.HostPort(name); return ok })
	if len(kept.byName) < maxPorts {
		kept.byName[name] = made
	}
	return made
}
