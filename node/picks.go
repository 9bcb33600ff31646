package node

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
	"github.com/muster-registry/muster/cluster"
	"github.com/muster-registry/muster/wire"
)

// What the balancers of a cluster say to each other.
const (
	// methodRedeem passes the report on a ticket to the node that gave it.
	methodRedeem = "redeem"
	// gossipOutcomes is the kind of the packets with which nodes exchange what they
	// learnt.
	gossipOutcomes byte = 1
	exchangeEvery       = time.Second
)

// picks joins the balancer of this node with those of the others.
type picks struct {
	balancer *balancer.Balancer
	cluster  *cluster.Node
	log      *slog.Logger
}

// join has the balancer hear what the other nodes say. It is called before
// anything runs.
func (p picks) join() {
	p.cluster.OnGossip(gossipOutcomes, func(from string, packet []byte) {
		if err := p.balancer.Import(time.Now(), from, packet); err != nil {
			p.log.Debug("a packet of outcomes cannot be read", "node", from, "err", err)
		}
	})
	p.cluster.Handle(methodRedeem, func(_ context.Context, _ string, body []byte) ([]byte, error) {
		ticket, o, err := decodeRedeem(body)
		if err != nil {
			return nil, muster.Errorf(muster.CodeInternal, "reading the report on a ticket: %v", err)
		}
		return nil, p.balancer.Redeem(time.Now(), ticket, o)
	})
}

// exchange tells the other nodes what was learnt here, until ctx ends.
func (p picks) exchange(ctx context.Context) {
	tick := time.NewTicker(exchangeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		packets := p.balancer.Export(time.Now())
		if len(packets) == 0 {
			continue
		}
		for _, m := range p.cluster.Status().Members {
			if !m.Alive || m.ID == p.cluster.ID() {
				continue
			}
			for _, packet := range packets {
				p.cluster.SendGossip(gossipOutcomes, m.ID, packet)
			}
		}
	}
}

// Redeem reports what became of a pick to the node that gave its ticket.
func (p picks) Redeem(ctx context.Context, ticket string, o balancer.Outcome) error {
	giver := balancer.TicketNode(ticket)
	if giver == "" || giver == p.cluster.ID() {
		return p.balancer.Redeem(time.Now(), ticket, o)
	}
	_, err := p.cluster.Call(ctx, giver, methodRedeem, encodeRedeem(ticket, o))
	switch {
	case errors.Is(err, muster.CodeUnknownMember):
		return muster.Errorf(muster.CodeUnknownTicket, "no member of this cluster gave the ticket")
	case errors.Is(err, muster.CodeNoLeader): // it was not sent
		return muster.Errorf(muster.CodeUnknownTicket, "the node %s, which gave the ticket, cannot be reached", giver).
			WithHint("report to POST …/instances/{id}/outcomes instead, which any node takes").WithCause(err)
	}
	return err
}

// The fields of the report on a ticket, in the protobuf wire format.
const (
	redeemTicket  wire.Number = 1
	redeemFailed  wire.Number = 2
	redeemLatency wire.Number = 3 // nanoseconds
)

func encodeRedeem(ticket string, o balancer.Outcome) []byte {
	b := wire.AppendText(nil, redeemTicket, ticket)
	b = wire.AppendBool(b, redeemFailed, o.Failed)
	return wire.AppendNumber(b, redeemLatency, uint64(o.Latency))
}

func decodeRedeem(b []byte) (ticket string, o balancer.Outcome, err error) {
	err = wire.Each(b, func(num wire.Number, v uint64, raw []byte) error {
		switch num {
		case redeemTicket:
			ticket = string(raw)
		case redeemFailed:
			o.Failed = v != 0
		case redeemLatency:
			o.Latency = time.Duration(v)
		}
		return nil
	})
	return ticket, o, err
}
