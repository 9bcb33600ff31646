package httpapi

import (
	"context"
	"net/http"

	"github.com/muster-registry/muster"
)

// Settings is what the routes ask of whoever keeps the settings of services and
// the switch of the expiry governor. All methods are called concurrently; their
// errors are those of [Registry].
type Settings interface {
	// Settings answers what holds for a service: its own, or the defaults.
	Settings(ctx context.Context, k muster.ServiceKey, o muster.ReadOptions) (muster.Settings, muster.ReadInfo, error)
	// Configure gives a service settings of its own; nil takes them away.
	Configure(ctx context.Context, who muster.Caller, k muster.ServiceKey, s *muster.Settings) (muster.Written, error)
	// Governor shows the expiry governor as this node knows it; it must be cheap.
	Governor() muster.Governor
	SwitchGovernor(ctx context.Context, who muster.Caller, on bool) (muster.Written, error)
}

// getSettings answers GET /v1/services/{service}/settings.
func (s *Server) getSettings(c *call) error {
	ctx, cancel, o, err := c.readContext()
	if err != nil {
		return err
	}
	defer cancel()
	settings, info, err := s.settings.Settings(ctx, c.serviceKey(), o)
	c.setRead(info)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, settings)
}

// putSettings answers PUT /v1/services/{service}/settings. What the body leaves
// out gets its default.
func (s *Server) putSettings(c *call) error {
	settings := muster.DefaultSettings()
	if err := c.decode(&settings, muster.MaxBodyBytes); err != nil {
		return err
	}
	if _, err := c.settle(func(ctx context.Context, who muster.Caller) (muster.Written, error) {
		return s.settings.Configure(ctx, who, c.serviceKey(), &settings)
	}); err != nil {
		return err
	}
	return c.json(http.StatusOK, settings)
}

// deleteSettings answers DELETE /v1/services/{service}/settings: the defaults hold
// again.
func (s *Server) deleteSettings(c *call) error {
	return c.write(func(ctx context.Context, who muster.Caller) (muster.Written, error) {
		return s.settings.Configure(ctx, who, c.serviceKey(), nil)
	}, http.StatusNoContent)
}

// getGovernor answers GET /v1/cluster/governor.
func (s *Server) getGovernor(c *call) error {
	return c.json(http.StatusOK, s.settings.Governor())
}

// governorRequest is the body of PUT /v1/cluster/governor.
type governorRequest struct {
	Enabled *bool `json:"enabled"`
}

// putGovernor answers PUT /v1/cluster/governor.
func (s *Server) putGovernor(c *call) error {
	var req governorRequest
	if err := c.decode(&req, muster.MaxBodyBytes); err != nil {
		return err
	}
	if req.Enabled == nil {
		return &muster.Error{
			Code: muster.CodeConflictingField, Detail: "the body does not say whether to enable the governor", Hint: `send {"enabled":true} or {"enabled":false}`,
			Fields: []muster.FieldError{{Pointer: "/enabled", Detail: "is missing"}},
		}
	}
	if _, err := c.settle(func(ctx context.Context, who muster.Caller) (muster.Written, error) {
		return s.settings.SwitchGovernor(ctx, who, *req.Enabled)
	}); err != nil {
		return err
	}
	return c.json(http.StatusOK, s.settings.Governor())
}
