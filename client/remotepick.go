package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// RemotePick has a node of the registry choose an instance of a service: for
// programs that pick now and then. Strategy, Key, PreferZone, Picks, Where,
// Linearizable, MaxStale, MinIndex, In and Info apply.
func (c *Client) RemotePick(ctx context.Context, service string, opts ...Option) (*muster.Pick, error) {
	return c.remotePick(ctx, c.newCall(http.MethodGet, servicePath(service)+"/pick", opts))
}

func (c *Client) remotePick(ctx context.Context, r *request) (*muster.Pick, error) {
	p, err := read[muster.Pick](ctx, c, r.inNamespace(c))
	if err == nil {
		displace(p.Instance)
		displace(p.Instances...)
	}
	return p, err
}

// RemoteTicket is RemotePick, and counts the pick as in flight until its Ticket is
// reported or runs out (TicketTTL applies too). It is never repeated when its
// outcome is unknown.
func (c *Client) RemoteTicket(ctx context.Context, service string, opts ...Option) (*muster.Pick, error) {
	r := c.newCall(http.MethodPost, servicePath(service)+"/pick", opts)
	r.read, r.repeatable = true, false
	return c.remotePick(ctx, r)
}

// ReportTicket says what became of a pick, to any node, and ends its ticket.
// unknown_ticket: it ran out, or was reported before.
func (c *Client) ReportTicket(ctx context.Context, ticket string, report muster.PickReport) error {
	r, err := c.newWrite(http.MethodPost, "/v1/picks/"+url.PathEscape(ticket), report, nil)
	if err != nil {
		return err
	}
	r.repeatable = false
	_, err = c.do(ctx, r)
	return err
}

// ReportOutcomes says what became of requests to an instance that was not picked by
// ticket. In applies. It is never repeated when its outcome is unknown.
func (c *Client) ReportOutcomes(ctx context.Context, service, id string, report muster.OutcomesReport, opts ...Option) error {
	r, err := c.newWrite(http.MethodPost, instancePath(service, id)+"/outcomes", report, opts)
	if err != nil {
		return err
	}
	r.repeatable, r.read = false, true
	_, err = c.do(ctx, r.inNamespace(c))
	return err
}

// BalancerStats reads what the node in use knows of a service's instances. In,
// Linearizable, MaxStale, MinIndex and Info apply.
func (c *Client) BalancerStats(ctx context.Context, service string, opts ...Option) (*balancer.Stats, error) {
	r := c.newCall(http.MethodGet, servicePath(service), opts).inNamespace(c)
	r.query.Set("view", "balancer")
	return read[balancer.Stats](ctx, c, r)
}

// Strategy picks by another strategy than the service's own.
func Strategy(name string) Option { return func(r *request) { r.query.Set("strategy", name) } }

// Key is what the hash strategies go by.
func Key(key string) Option { return func(r *request) { r.query.Set("key", key) } }

// PreferZone prefers a zone, and spills over where it is short.
func PreferZone(zone string) Option { return func(r *request) { r.query.Set("zone", "prefer:"+zone) } }

// Picks asks for up to n distinct instances, in Pick.Instances.
func Picks(n int) Option { return func(r *request) { r.query.Set("n", strconv.Itoa(n)) } }

// TicketTTL is how long a ticket is good for, instead of
// muster.DefaultTicketTTL.
func TicketTTL(d time.Duration) Option {
	return func(r *request) { r.query.Set("ticket_ttl", d.String()) }
}
