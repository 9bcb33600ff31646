package httpapi

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/muster-registry/muster"
)

// getInstance answers GET …/instances/{id}.
func (s *Server) getInstance(c *call) error {
	p, err := c.newPoll()
	if err != nil {
		return err
	}
	k := c.instanceKey()
	inst, info, err := answer(p, source[*muster.Instance]{
		read: func(ctx context.Context, o muster.ReadOptions) (*muster.Instance, muster.ReadInfo, error) {
			return s.registry.Instance(ctx, k, o)
		},
		pace:  paceKey{namespace: k.Namespace, name: k.Service},
		index: func(i *muster.Instance) uint64 { return i.ModifyIndex },
		same:  func(a, b *muster.Instance) bool { return a.ModifyIndex == b.ModifyIndex && a.Place == b.Place },
	})
	c.setRead(info)
	if err != nil {
		return err
	}
	etag := c.setETag(inst)
	if c.unchanged(etag) {
		return c.empty(http.StatusNotModified)
	}
	return c.json(http.StatusOK, inst)
}

func (c *call) setETag(inst *muster.Instance) string {
	etag := `"` + inst.ETag() + `"`
	c.set(headerETag, etag)
	return etag
}

// putInstance answers PUT …/instances/{id}.
func (s *Server) putInstance(c *call) error {
	inst, err := c.instance()
	if err != nil {
		return err
	}
	cond, err := c.condition()
	if err != nil {
		return err
	}
	return s.register(c, inst, cond, false)
}

// postInstance answers POST …/instances: the registry makes the id.
func (s *Server) postInstance(c *call) error {
	inst, err := c.instance()
	if err != nil {
		return err
	}
	inst.ID = strings.ToLower(rand.Text())
	return s.register(c, inst, muster.Condition{Absent: true}, true)
}

func (s *Server) register(c *call, inst *muster.Instance, cond muster.Condition, located bool) error {
	w, err := c.settle(func(ctx context.Context, who muster.Caller) (muster.Written, error) {
		return s.registry.Register(ctx, who, inst, cond)
	})
	if err != nil {
		return err
	}
	c.setETag(w.Instance)
	if located {
		c.set(headerLocation, instancePath(w.Instance))
	}
	if w.Created {
		return c.json(http.StatusCreated, w.Instance)
	}
	return c.json(http.StatusOK, w.Instance)
}

// instancePath is where an instance is found.
func instancePath(i *muster.Instance) string {
	path := "/v1/services/" + i.Service + "/instances/" + i.ID
	if i.Namespace != muster.DefaultNamespace {
		path += "?namespace=" + url.QueryEscape(i.Namespace)
	}
	return path
}

// instance reads an instance from the body. What the path names, the body may
// repeat but not contradict.
func (c *call) instance() (*muster.Instance, error) {
	inst := &muster.Instance{Weight: muster.DefaultWeight}
	if err := c.decode(inst, muster.MaxBodyBytes); err != nil {
		return nil, err
	}
	k := c.instanceKey()
	namespace := k.Namespace
	if namespace == "" {
		namespace = muster.DefaultNamespace
	}
	switch {
	case inst.Namespace != "" && !strings.EqualFold(inst.Namespace, namespace):
		return nil, conflicting("namespace", inst.Namespace, namespace, "the namespace is given by ?namespace=")
	case inst.Service != "" && !strings.EqualFold(inst.Service, k.Service):
		return nil, conflicting("service", inst.Service, k.Service, "")
	case inst.ID != "" && k.ID == "":
		return nil, conflicting("id", inst.ID, "", "POST makes the id; PUT …/instances/{id} registers under one of your own")
	case inst.ID != "" && inst.ID != k.ID:
		return nil, conflicting("id", inst.ID, k.ID, "")
	}
	inst.Namespace, inst.Service, inst.ID = namespace, k.Service, k.ID
	return inst, nil
}

func conflicting(field, body, path, hint string) error {
	detail := "the body says " + strconv.Quote(clip(body)) + " and the path " + strconv.Quote(clip(path))
	return &muster.Error{
		Code: muster.CodeConflictingField, Detail: field + ": " + detail, Hint: hint,
		Fields: []muster.FieldError{{Pointer: "/" + field, Detail: detail}},
	}
}

// deleteInstance answers DELETE …/instances/{id}.
func (s *Server) deleteInstance(c *call) error {
	cond, err := c.condition()
	if err != nil {
		return err
	}
	incarnation, err := c.incarnation()
	if err != nil {
		return err
	}
	return c.write(func(ctx context.Context, who muster.Caller) (muster.Written, error) {
		return s.registry.Deregister(ctx, who, c.instanceKey(), incarnation, cond)
	}, http.StatusNoContent)
}

// write runs a write and answers it with the instance, or with nothing where
// status says so.
func (c *call) write(do func(context.Context, muster.Caller) (muster.Written, error), status int) error {
	w, err := c.settle(do)
	if err != nil {
		return err
	}
	if status == http.StatusNoContent {
		return c.empty(status)
	}
	c.setETag(w.Instance)
	return c.json(status, w.Instance)
}
