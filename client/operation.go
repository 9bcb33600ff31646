package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/muster-registry/muster"
)

// Version is what a node says of itself.
type Version struct {
	Version string `json:"version"`
	API     string `json:"api"`
	Go      string `json:"go"`
}

// plain makes a request for a route that takes no parameters.
func (c *Client) plain(method, path string, opts ...Option) *request {
	r := c.newCall(method, path, opts)
	r.read, r.timed = false, false
	return r
}

// Version asks the node in use which version it is.
func (c *Client) Version(ctx context.Context) (*Version, error) {
	return read[Version](ctx, c, c.plain(http.MethodGet, "/v1/version"))
}

// Limits reads the limits that the node in use enforces.
func (c *Client) Limits(ctx context.Context) (*muster.Limits, error) {
	return read[muster.Limits](ctx, c, c.plain(http.MethodGet, "/v1/limits"))
}

// Cluster reads the members of the cluster as the node in use sees them. Info
// applies.
func (c *Client) Cluster(ctx context.Context, opts ...Option) (*muster.Cluster, error) {
	return read[muster.Cluster](ctx, c, c.plain(http.MethodGet, "/v1/cluster", opts...))
}

// TransferLeadership hands leadership to a member, "" to any that is fit, and
// returns the leader that is known then.
func (c *Client) TransferLeadership(ctx context.Context, to string) (leader string, err error) {
	r, err := c.newWrite(http.MethodPost, "/v1/cluster/leader", struct {
		To string `json:"to,omitempty"`
	}{to}, nil)
	if err != nil {
		return "", err
	}
	r.repeatable = to != ""
	got, err := read[struct {
		Leader string `json:"leader"`
	}](ctx, c, r)
	if err != nil {
		return "", err
	}
	return got.Leader, nil
}

// RemoveMember removes a member for good; conflict where that would endanger the
// quorum.
func (c *Client) RemoveMember(ctx context.Context, id string) error {
	r := c.newCall(http.MethodDelete, "/v1/cluster/members/"+url.PathEscape(id), nil)
	_, err := c.do(ctx, r)
	return err
}

// Governor reads the expiry governor as the node in use knows it.
func (c *Client) Governor(ctx context.Context) (*muster.Governor, error) {
	return read[muster.Governor](ctx, c, c.plain(http.MethodGet, "/v1/cluster/governor"))
}

// SwitchGovernor turns the expiry governor on or off for the whole cluster. Reason
// applies.
func (c *Client) SwitchGovernor(ctx context.Context, on bool, opts ...Option) (*muster.Governor, error) {
	r, err := c.newWrite(http.MethodPut, "/v1/cluster/governor", struct {
		Enabled bool `json:"enabled"`
	}{on}, opts)
	if err != nil {
		return nil, err
	}
	return read[muster.Governor](ctx, c, r)
}
