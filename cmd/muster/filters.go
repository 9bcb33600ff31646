package main

import (
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
)

// filters are the flags that narrow a list of instances.
type filters struct {
	status, zone, version, filter string
	tags, meta                    []string
	routable                      bool
}

// flags adds the flags to a verb; zone says what that one means there.
func (f *filters) flags(cmd *cobra.Command, zone string) {
	f.narrow(cmd, zone)
	cmd.Flags().StringVar(&f.status, "status", "", "only instances of this status")
	cmd.Flags().BoolVar(&f.routable, "routable", false, "only instances that may be given traffic")
}

// narrow adds the flags that say nothing of how an instance fares.
func (f *filters) narrow(cmd *cobra.Command, zone string) {
	fs := cmd.Flags()
	fs.StringVar(&f.zone, "zone", "", zone)
	fs.StringVar(&f.version, "version", "", "only instances of this version")
	fs.StringVar(&f.filter, "filter", "", "an expression over the instance's fields")
	fs.StringSliceVar(&f.tags, "tag", nil, "only instances with this tag (repeat: all of them)")
	fs.StringSliceVar(&f.meta, "meta", nil, "only instances with this metadata, KEY=VALUE (repeat: all of them)")
}

// query is what the flags say.
func (f *filters) query() (muster.Query, error) {
	q := muster.Query{Status: muster.Status(f.status), Zone: f.zone, Version: f.version, Filter: f.filter, Tags: f.tags}
	if f.routable {
		q.Routable = &f.routable
	}
	var err error
	q.Meta, err = parseMeta(f.meta)
	return q, err
}

// into adds the parameters to a query.
func (f *filters) into(q url.Values) {
	for _, kv := range [][2]string{{"status", f.status}, {"zone", f.zone}, {"version", f.version}, {"filter", f.filter}} {
		if kv[1] != "" {
			q.Set(kv[0], kv[1])
		}
	}
	for _, t := range f.tags {
		q.Add("tag", t)
	}
	for _, kv := range f.meta {
		k, v, _ := strings.Cut(kv, "=")
		q.Set("meta."+k, v)
	}
	if f.routable {
		q.Set("routable", "true")
	}
}
