package client

import (
	"context"
	"net/http"
	"strconv"

	"github.com/muster-registry/muster"
)

// Heartbeat renews what an instance hangs on. unknown_instance asks to register
// again. Incarnation and In apply.
func (c *Client) Heartbeat(ctx context.Context, service, id string, opts ...Option) (*muster.Beat, error) {
	return read[muster.Beat](ctx, c, c.newCall(http.MethodPut, instancePath(service, id)+"/heartbeat", opts).inNamespace(c))
}

// Heartbeats renews up to muster.MaxHeartbeatItems leases and instances at once.
func (c *Client) Heartbeats(ctx context.Context, h muster.Heartbeats) (*muster.Beats, error) {
	r, err := c.newWrite(http.MethodPost, "/v1/heartbeats", h, nil)
	if err != nil {
		return nil, err
	}
	return read[muster.Beats](ctx, c, r)
}

// GrantLease makes a lease that many instances may name in LeaseID; one heartbeat
// keeps them all. It is never repeated when its outcome is unknown: a lease that
// nobody knows of runs out by itself. Reason applies.
func (c *Client) GrantLease(ctx context.Context, req muster.LeaseRequest, opts ...Option) (*muster.Lease, error) {
	if req.TTL == 0 {
		req.TTL = muster.TTL(muster.DefaultTTL)
	}
	r, err := c.newWrite(http.MethodPost, "/v1/leases", req, opts)
	if err != nil {
		return nil, err
	}
	r.repeatable = false
	return read[muster.Lease](ctx, c, r)
}

// Lease shows a lease, with the time it has left, on the leader's word.
func (c *Client) Lease(ctx context.Context, id muster.LeaseID) (*muster.Lease, error) {
	r := c.newCall(http.MethodGet, leasePath(id), nil)
	r.read = false // it is linearizable anyway
	return read[muster.Lease](ctx, c, r)
}

// HeartbeatLease renews a lease. unknown_lease asks for a new one.
func (c *Client) HeartbeatLease(ctx context.Context, id muster.LeaseID) (*muster.Beat, error) {
	return read[muster.Beat](ctx, c, c.newCall(http.MethodPut, leasePath(id)+"/heartbeat", nil))
}

// RevokeLease ends a lease and takes all that hangs on it away, in one entry.
// Reason applies.
func (c *Client) RevokeLease(ctx context.Context, id muster.LeaseID, opts ...Option) (muster.Written, error) {
	return c.write(ctx, c.newCall(http.MethodDelete, leasePath(id), opts))
}

func leasePath(id muster.LeaseID) string {
	return "/v1/leases/" + strconv.FormatUint(id.Index(), 10) + "-" + strconv.Itoa(id.Place())
}
