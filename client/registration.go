package client

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

// NoTraffic is the Weight of an instance that is to take no new traffic. In what a
// program makes itself a Weight of 0 is the default, muster.DefaultWeight; in an
// instance that came from the registry it is what it says.
const NoTraffic = -1

// outgoing is i as it is sent: in its namespace, with the weight it means.
func (c *Client) outgoing(i *muster.Instance) *muster.Instance {
	o := *i
	if o.Namespace == "" {
		o.Namespace = c.cfg.Namespace
	}
	switch {
	case o.Weight < 0:
		o.Weight = 0
	case o.Weight == 0 && o.CreateIndex == 0:
		o.Weight = muster.DefaultWeight
	}
	return &o
}

// PutInstance registers i under its service and id, or replaces what is there, once:
// nobody keeps it alive, see Register for that. Reason, IfAbsent and IfUnchanged
// apply. It is repeated when its outcome is unknown, unless it has a condition.
func (c *Client) PutInstance(ctx context.Context, i *muster.Instance, opts ...Option) (muster.Written, error) {
	o := c.outgoing(i)
	r, err := c.newWrite(http.MethodPut, instancePath(o.Service, o.ID), o, opts)
	if err != nil {
		return muster.Written{}, err
	}
	r.query.Set("namespace", o.Namespace)
	return c.write(ctx, r)
}

// CreateInstance registers i under an id that the registry makes; i.ID has to be
// empty. It is never repeated when its outcome is unknown.
func (c *Client) CreateInstance(ctx context.Context, i *muster.Instance, opts ...Option) (muster.Written, error) {
	o := c.outgoing(i)
	r, err := c.newWrite(http.MethodPost, servicePath(o.Service)+"/instances", o, opts)
	if err != nil {
		return muster.Written{}, err
	}
	r.query.Set("namespace", o.Namespace)
	r.repeatable = false
	return c.write(ctx, r)
}

// batchBytes leaves room in a batch for what surrounds its instances.
const batchBytes = muster.MaxBatchBytes - 1024

// RegisterBatch registers each instance on its own, in as many requests as that
// takes, and answers an item for each, in order: one that is refused does not stop
// the others. The error is that of a request that failed as a whole; the items that
// were settled before it are returned beside it. Reason applies.
func (c *Client) RegisterBatch(ctx context.Context, instances []*muster.Instance, opts ...Option) ([]muster.BatchItem, error) {
	items := make([]muster.BatchItem, 0, len(instances))
	for len(items) < len(instances) {
		n, body, err := c.batch(instances[len(items):])
		if err != nil {
			return items, err
		}
		r := c.newCall(http.MethodPost, "/v1/batch/register", opts)
		r.body = body
		got, err := c.sendBatch(ctx, r)
		if err == nil && len(got) != n {
			err = muster.Errorf(muster.CodeInternal, "the registry answered %d results for %d instances", len(got), n)
		}
		if err != nil {
			return items, err
		}
		items = append(items, got...)
	}
	return items, nil
}

// batch encodes as many instances as fit one request, at least one.
func (c *Client) batch(instances []*muster.Instance) (n int, body []byte, err error) {
	body = []byte(`{"instances":[`)
	for _, i := range instances[:min(len(instances), muster.MaxBatchItems)] {
		b, err := json.Marshal(c.outgoing(i))
		if err != nil {
			return 0, nil, muster.Errorf(muster.CodeInvalidJSON, "instance %s cannot be encoded", i.ID).WithCause(err)
		}
		if n > 0 && len(body)+len(b) > batchBytes {
			break
		}
		if n > 0 {
			body = append(body, ',')
		}
		body = append(body, b...)
		n++
	}
	return n, append(body, `]}`...), nil
}

func (c *Client) sendBatch(ctx context.Context, r *request) ([]muster.BatchItem, error) {
	var got struct {
		Results []struct {
			Namespace, Service, ID string
			Index                  uint64
			Created, Changed       bool
			Error                  *problem.Problem
		}
	}
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := a.decode(&got); err != nil {
		return nil, err
	}
	items := make([]muster.BatchItem, 0, len(got.Results))
	for _, res := range got.Results {
		item := muster.BatchItem{
			Key:     muster.InstanceKey{Namespace: res.Namespace, Service: res.Service, ID: res.ID},
			Written: muster.Written{Index: res.Index, Created: res.Created, Changed: res.Changed},
		}
		if res.Error != nil {
			item.Err = res.Error.Err()
		}
		items = append(items, item)
	}
	return items, nil
}

// Deregister takes an instance away. One that is gone already, and remembered, is no
// error. Reason, Incarnation, IfUnchanged and In apply.
func (c *Client) Deregister(ctx context.Context, service, id string, opts ...Option) (muster.Written, error) {
	return c.write(ctx, c.newCall(http.MethodDelete, instancePath(service, id), opts).inNamespace(c))
}

// SetOverride takes an instance into maintenance or drains it, above what its owner
// registers. Reason and In apply.
func (c *Client) SetOverride(ctx context.Context, service, id string, o muster.Override, opts ...Option) (muster.Written, error) {
	r, err := c.newWrite(http.MethodPut, instancePath(service, id)+"/override", o, opts)
	if err != nil {
		return muster.Written{}, err
	}
	return c.write(ctx, r.inNamespace(c))
}

// ClearOverride takes the override off. Reason and In apply.
func (c *Client) ClearOverride(ctx context.Context, service, id string, opts ...Option) (muster.Written, error) {
	return c.write(ctx, c.newCall(http.MethodDelete, instancePath(service, id)+"/override", opts).inNamespace(c))
}

// Configure gives a service settings of its own, on all nodes and in all clients.
// Begin with muster.DefaultSettings: what is 0 is a 0. Reason and In apply.
func (c *Client) Configure(ctx context.Context, service string, s muster.Settings, opts ...Option) error {
	r, err := c.newWrite(http.MethodPut, servicePath(service)+"/settings", s, opts)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, r.inNamespace(c))
	return err
}

// ClearSettings takes a service's own settings away: the defaults hold again. Reason
// and In apply.
func (c *Client) ClearSettings(ctx context.Context, service string, opts ...Option) error {
	_, err := c.do(ctx, c.newCall(http.MethodDelete, servicePath(service)+"/settings", opts).inNamespace(c))
	return err
}

// newWrite makes a request with a body. One with a condition is not repeated when
// its outcome is unknown: the repetition would meet its own first.
func (c *Client) newWrite(method, path string, body any, opts []Option) (*request, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, muster.Errorf(muster.CodeInvalidJSON, "the request cannot be encoded").WithCause(err)
	}
	r := c.newCall(method, path, opts)
	r.body = b
	r.repeatable = len(r.header) == 0
	return r, nil
}

// write sends r and says what became of it.
func (c *Client) write(ctx context.Context, r *request) (muster.Written, error) {
	a, err := c.do(ctx, r)
	if err != nil {
		return muster.Written{}, err
	}
	w := muster.Written{Index: a.index(), Created: a.status == http.StatusCreated}
	if len(a.body) == 0 {
		return w, nil
	}
	if w.Instance, err = instanceOf(a); err != nil {
		return w, err
	}
	w.Changed = w.Instance.ModifyIndex == w.Index
	return w, nil
}
