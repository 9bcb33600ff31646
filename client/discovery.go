package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/muster-registry/muster"
)

// Service reads a service's view: its instances, sorted by id. The view is the
// caller's own. A service that nothing is known of is unknown_service. Where, After
// (a long poll), Linearizable, MaxStale, MinIndex, In and Info apply.
func (c *Client) Service(ctx context.Context, service string, opts ...Option) (*muster.View, error) {
	v, err := read[muster.View](ctx, c, c.newCall(http.MethodGet, servicePath(service), opts).inNamespace(c))
	if err == nil {
		displace(v.Instances...)
	}
	return v, err
}

// Services lists the services of a namespace. Prefix, After, Linearizable,
// MaxStale, MinIndex, In and Info apply.
func (c *Client) Services(ctx context.Context, opts ...Option) (*muster.Services, error) {
	return read[muster.Services](ctx, c, c.newCall(http.MethodGet, "/v1/services", opts).inNamespace(c))
}

// Instance reads one instance. After, Linearizable, MaxStale, MinIndex, In and Info
// apply.
func (c *Client) Instance(ctx context.Context, service, id string, opts ...Option) (*muster.Instance, error) {
	a, err := c.do(ctx, c.newCall(http.MethodGet, instancePath(service, id), opts).inNamespace(c))
	if err != nil {
		return nil, err
	}
	return instanceOf(a)
}

// Events reads the journal: the latest q.Limit events that match, the oldest first.
// Linearizable, MaxStale, MinIndex and Info apply.
func (c *Client) Events(ctx context.Context, q muster.EventQuery, opts ...Option) (*muster.Events, error) {
	r := c.newCall(http.MethodGet, "/v1/events", opts)
	for name, value := range map[string]string{"namespace": q.Namespace, "service": q.Service, "instance": q.Instance} {
		if value != "" {
			r.query.Set(name, value)
		}
	}
	if q.Since > 0 {
		r.query.Set("since", strconv.FormatUint(q.Since, 10))
	}
	if q.Limit > 0 {
		r.query.Set("limit", strconv.Itoa(q.Limit))
	}
	return read[muster.Events](ctx, c, r.inNamespace(c))
}

// Settings reads what holds for a service: its own settings, or the defaults.
// Linearizable, MaxStale, MinIndex, In and Info apply.
func (c *Client) Settings(ctx context.Context, service string, opts ...Option) (*muster.Settings, error) {
	return read[muster.Settings](ctx, c, c.newCall(http.MethodGet, servicePath(service)+"/settings", opts).inNamespace(c))
}

// read sends r and decodes the answer.
func read[T any](ctx context.Context, c *Client, r *request) (*T, error) {
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := a.decode(v); err != nil {
		return nil, err
	}
	return v, nil
}

// displace notes that the place of instances is not known: only the entity tag of a
// single one tells it.
func displace(instances ...*muster.Instance) {
	for _, i := range instances {
		if i != nil {
			i.Place = -1
		}
	}
}

// instanceOf reads an instance and, from its entity tag, its place.
func instanceOf(a *answer) (*muster.Instance, error) {
	i := new(muster.Instance)
	if err := a.decode(i); err != nil {
		return nil, err
	}
	i.Place = -1
	if tag := a.header.Get("Etag"); len(tag) > 2 {
		if index, place, err := muster.ParseETag(tag[1 : len(tag)-1]); err == nil && index == i.ModifyIndex {
			i.Place = place
		}
	}
	return i, nil
}

func servicePath(service string) string { return "/v1/services/" + url.PathEscape(service) }

func instancePath(service, id string) string {
	return servicePath(service) + "/instances/" + url.PathEscape(id)
}

// isUnknown reports whether the registry knows nothing of what was asked for.
func isUnknown(err error) bool {
	return errors.Is(err, muster.CodeUnknownService) || errors.Is(err, muster.CodeUnknownInstance)
}
