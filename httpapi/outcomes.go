package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// Tickets is who takes what became of picks. It is called concurrently.
type Tickets interface {
	// Redeem reports the outcome of a pick to the node that gave the ticket, be it
	// this one or another; unknown_ticket where that knows nothing of it.
	Redeem(ctx context.Context, ticket string, o balancer.Outcome) error
}

// postTicket answers POST /v1/picks/{ticket}.
func (s *Server) postTicket(c *call) error {
	var r muster.PickReport
	if err := c.decode(&r, muster.MaxBodyBytes); err != nil {
		return err
	}
	if err := r.Validate(); err != nil {
		return err
	}
	ctx, cancel, err := c.writeContext()
	if err != nil {
		return err
	}
	defer cancel()
	o := balancer.Outcome{Failed: r.Outcome == muster.PickFailure, Latency: time.Duration(r.Latency)}
	if err := s.tickets.Redeem(ctx, c.path["ticket"], o); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

// postOutcomes answers POST …/instances/{id}/outcomes.
func (s *Server) postOutcomes(c *call) error {
	c.reads = true // until it is known of which instance, nothing happens
	var r muster.OutcomesReport
	if err := c.decode(&r, muster.MaxBodyBytes); err != nil {
		return err
	}
	v, _, err := s.viewOf(c, nil)
	if err != nil {
		return err
	}
	o := balancer.Outcomes{Successes: r.Successes, Failures: r.Failures, Latency: time.Duration(r.Latency)}
	if err := s.balancer.Report(time.Now(), v, c.path["id"], o); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

// balancerView is what the balancer of this node knows of a service.
type balancerView struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Index     uint64 `json:"index"`
	// Node is whose knowledge it is: nodes tell each other, and that takes a second.
	Node string `json:"node"`
	balancer.Stats
}

// getServiceStats answers GET /v1/services/{service}?view=balancer. It has no index
// of its own to wait on, and shows the whole service: what is ejected or in panic
// depends on all of it.
func (s *Server) getServiceStats(c *call) error {
	if view := c.values.text[paramView]; view != "balancer" {
		return badParam(muster.CodeUnknownParameter, "view", "", "%q is not balancer, the only other view there is", clip(view))
	}
	for _, p := range []paramSet{filterParams, pollParams &^ readParams} {
		for name := range (c.values.set & p).names() {
			return badParam(muster.CodeConflictingField, name, "leave it out", "does not go with view=balancer, which shows the whole service as it is now")
		}
	}
	v, info, err := s.viewOf(c, nil)
	c.setRead(info)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, balancerView{
		Namespace: v.Namespace, Service: v.Service, Index: v.Index, Node: s.cluster.ID(), Stats: s.balancer.Stats(time.Now(), v),
	})
}
