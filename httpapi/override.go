package httpapi

import (
	"context"
	"net/http"

	"github.com/muster-registry/muster"
)

// putOverride answers PUT …/instances/{id}/override.
func (s *Server) putOverride(c *call) error {
	var o muster.Override
	if err := c.decode(&o, muster.MaxBodyBytes); err != nil {
		return err
	}
	return c.write(func(ctx context.Context, who muster.Caller) (muster.Written, error) {
		o.Actor = who.Actor
		return s.registry.SetOverride(ctx, who, c.instanceKey(), o)
	}, http.StatusOK)
}

// deleteOverride answers DELETE …/instances/{id}/override.
func (s *Server) deleteOverride(c *call) error {
	return c.write(func(ctx context.Context, who muster.Caller) (muster.Written, error) {
		return s.registry.ClearOverride(ctx, who, c.instanceKey())
	}, http.StatusNoContent)
}
