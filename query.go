package muster

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
)

// Query narrows a list of instances. The zero Query lets everything through;
// what is set must all hold.
type Query struct {
	Status   Status
	Routable *bool
	Tags     []string
	Zone     string
	Version  string
	Meta     map[string]string
	// Filter is an expression over the instance's JSON fields, in the language of
	// hashicorp/go-bexpr. Match does not look at it; the registry does.
	Filter string
}

// IsZero reports whether q lets everything through.
func (q *Query) IsZero() bool {
	return q == nil || q.Status == "" && q.Routable == nil && len(q.Tags) == 0 && q.Zone == "" && q.Version == "" &&
		len(q.Meta) == 0 && q.Filter == ""
}

// Match reports whether i passes everything but Filter.
func (q *Query) Match(i *Instance) bool {
	if q == nil {
		return true
	}
	if q.Status != "" && i.Status != q.Status || q.Routable != nil && i.Routable != *q.Routable ||
		q.Zone != "" && i.Zone != q.Zone || q.Version != "" && i.Version != q.Version {
		return false
	}
	for _, t := range q.Tags {
		if !slices.Contains(i.Tags, t) {
			return false
		}
	}
	for k, v := range q.Meta {
		if got, ok := i.Meta[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Values renders q as the query parameters of the HTTP API, in canonical order.
func (q *Query) Values() url.Values {
	v := url.Values{}
	if q.IsZero() {
		return v
	}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("status", string(q.Status))
	if q.Routable != nil {
		v.Set("routable", strconv.FormatBool(*q.Routable))
	}
	for _, t := range slices.Compact(slices.Sorted(slices.Values(q.Tags))) {
		v.Add("tag", t)
	}
	set("zone", q.Zone)
	set("version", q.Version)
	for _, k := range slices.Sorted(maps.Keys(q.Meta)) {
		v.Set("meta."+k, q.Meta[k])
	}
	set("filter", q.Filter)
	return v
}

// Key is a canonical text of q: equal queries have equal keys. It is "" for a
// query that lets everything through.
func (q *Query) Key() string {
	if q.IsZero() {
		return ""
	}
	return q.Values().Encode()
}

// WatchQuery says what a stream carries, and from where on: the named services of
// a namespace, or where none is named all whose names start with Prefix.
type WatchQuery struct {
	// Namespace is DefaultNamespace when empty.
	Namespace string
	Services  []string
	// Prefix goes without Services; "" is every service of the namespace.
	Prefix string
	// From is the index of the last message that was seen, on whichever node; 0
	// starts with snapshots.
	From uint64
	// Cluster is the id of the cluster that From is of; "" if that is not known.
	Cluster string
	// Lines asks for NDJSON instead of server-sent events.
	Lines bool
}
