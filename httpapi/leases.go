package httpapi

import (
	"context"
	"net/http"
	"slices"

	"github.com/muster-registry/muster"
)

// Leases is what the routes ask of whoever keeps the leases. All methods are
// called concurrently and answer on the leader's word; their errors are those of
// [Registry].
type Leases interface {
	// Heartbeat renews what an instance hangs on; incarnation 0 asks for no fencing.
	Heartbeat(ctx context.Context, k muster.InstanceKey, incarnation uint64) (muster.Beat, error)
	HeartbeatLease(ctx context.Context, id muster.LeaseID) (muster.Beat, error)
	Heartbeats(ctx context.Context, h muster.Heartbeats) (muster.Beats, error)
	GrantLease(ctx context.Context, who muster.Caller, req muster.LeaseRequest) (*muster.Lease, uint64, error)
	Lease(ctx context.Context, id muster.LeaseID) (*muster.Lease, muster.ReadInfo, error)
	RevokeLease(ctx context.Context, who muster.Caller, id muster.LeaseID) (muster.Written, error)
}

// beatInstance answers PUT …/instances/{id}/heartbeat.
func (s *Server) beatInstance(c *call) error {
	incarnation, err := c.incarnation()
	if err != nil {
		return err
	}
	return c.beat(func(ctx context.Context) (muster.Beat, error) {
		return s.leases.Heartbeat(ctx, c.instanceKey(), incarnation)
	})
}

// beatLease answers PUT /v1/leases/{id}/heartbeat.
func (s *Server) beatLease(c *call) error {
	id, err := c.leaseID()
	if err != nil {
		return err
	}
	return c.beat(func(ctx context.Context) (muster.Beat, error) { return s.leases.HeartbeatLease(ctx, id) })
}

func (c *call) beat(do func(context.Context) (muster.Beat, error)) error {
	ctx, cancel, err := c.writeContext()
	if err != nil {
		return err
	}
	defer cancel()
	b, err := do(ctx)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, b)
}

// beatMany answers POST /v1/heartbeats.
func (s *Server) beatMany(c *call) error {
	var h muster.Heartbeats
	if err := c.decode(&h, muster.MaxBatchBytes); err != nil {
		return err
	}
	if slices.Contains(h.Leases, 0) {
		return muster.Errorf(muster.CodeUnknownLease, "a lease id is empty")
	}
	ctx, cancel, err := c.writeContext()
	if err != nil {
		return err
	}
	defer cancel()
	b, err := s.leases.Heartbeats(ctx, h)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, b)
}

// postLease answers POST /v1/leases.
func (s *Server) postLease(c *call) error {
	var req muster.LeaseRequest
	if err := c.decode(&req, muster.MaxBodyBytes); err != nil {
		return err
	}
	var l *muster.Lease
	if _, err := c.settle(func(ctx context.Context, who muster.Caller) (w muster.Written, err error) {
		l, w.Index, err = s.leases.GrantLease(ctx, who, req)
		return w, err
	}); err != nil {
		return err
	}
	c.set(headerLocation, "/v1/leases/"+l.ID.String())
	return c.json(http.StatusCreated, l)
}

// getLease answers GET /v1/leases/{id}.
func (s *Server) getLease(c *call) error {
	id, err := c.leaseID()
	if err != nil {
		return err
	}
	ctx, cancel, err := c.writeContext()
	if err != nil {
		return err
	}
	defer cancel()
	l, info, err := s.leases.Lease(ctx, id)
	c.setRead(info)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, l)
}

// deleteLease answers DELETE /v1/leases/{id}.
func (s *Server) deleteLease(c *call) error {
	id, err := c.leaseID()
	if err != nil {
		return err
	}
	return c.write(func(ctx context.Context, who muster.Caller) (muster.Written, error) {
		return s.leases.RevokeLease(ctx, who, id)
	}, http.StatusNoContent)
}

func (c *call) leaseID() (muster.LeaseID, error) {
	id, err := muster.ParseLeaseID(c.path["id"])
	if err == nil && id == 0 {
		err = muster.Errorf(muster.CodeUnknownLease, "the path names no lease")
	}
	return id, err
}

// incarnation reads ?incarnation=; 0 where there is none.
func (c *call) incarnation() (uint64, error) {
	if !c.values.has(paramIncarnation) {
		return 0, nil
	}
	text := c.values.text[paramIncarnation]
	n, err := muster.ParseIndex(text)
	if err != nil || n == 0 {
		return 0, badParam(muster.CodeInvalidIndex, "incarnation", "", "%q is not a whole number from 1 to 2^53-1", clip(text))
	}
	return n, nil
}
