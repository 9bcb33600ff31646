package httpapi

import (
	"net/http"
	"strconv"

	"github.com/muster-registry/muster"
)

// getCluster answers GET /v1/cluster: the members as this node sees them, which a
// node without a leader does too.
func (s *Server) getCluster(c *call) error {
	if stale, ready := s.cluster.Freshness(); ready {
		c.set(headerStale, strconv.FormatInt(stale.Milliseconds(), 10))
	}
	status := s.cluster.Status()
	if status.Members == nil {
		status.Members = []muster.Member{}
	}
	status.Governor = s.settings.Governor()
	return c.json(http.StatusOK, status)
}

// leaderRequest is the body of POST /v1/cluster/leader; without a name any fit
// member will do.
type leaderRequest struct {
	To string `json:"to"`
}

type leaderAnswer struct {
	Leader string `json:"leader"`
}

// postLeader answers POST /v1/cluster/leader: leadership is handed over.
func (s *Server) postLeader(c *call) error {
	var req leaderRequest
	if err := c.decode(&req, muster.MaxBodyBytes); err != nil {
		return err
	}
	ctx, cancel, err := c.writeContext()
	if err != nil {
		return err
	}
	defer cancel()
	if err := s.cluster.TransferLeadership(ctx, req.To); err != nil {
		return err
	}
	leader, _ := s.cluster.Leader()
	return c.json(http.StatusOK, leaderAnswer{leader})
}

type removedAnswer struct {
	Removed string `json:"removed"`
}

// deleteMember answers DELETE /v1/cluster/members/{id}.
func (s *Server) deleteMember(c *call) error {
	ctx, cancel, err := c.writeContext()
	if err != nil {
		return err
	}
	defer cancel()
	id := c.path["id"]
	if err := s.cluster.RemoveMember(ctx, id); err != nil {
		return err
	}
	return c.json(http.StatusOK, removedAnswer{id})
}
