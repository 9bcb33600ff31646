package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
	"github.com/muster-registry/muster/cluster"
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
			p.log.Debug("a packet of outcomes cannot be read", "from", from, "err", err)
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
	redeemTicket  protowire.Number = 1
	redeemFailed  protowire.Number = 2
	redeemLatency protowire.Number = 3 // nanoseconds
)

func encodeRedeem(ticket string, o balancer.Outcome) []byte {
	b := protowire.AppendTag(nil, redeemTicket, protowire.BytesType)
	b = protowire.AppendString(b, ticket)
	if o.Failed {
		b = protowire.AppendTag(b, redeemFailed, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	b = protowire.AppendTag(b, redeemLatency, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(o.Latency))
}

func decodeRedeem(b []byte) (ticket string, o balancer.Outcome, err error) {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", o, fmt.Errorf("a tag: %w", protowire.ParseError(n))
		}
		b = b[n:]
		var v uint64
		switch {
		case num == redeemTicket && kind == protowire.BytesType:
			ticket, n = protowire.ConsumeString(b)
		case kind == protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		default: // of a later version
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return "", o, fmt.Errorf("field %d: %w", num, protowire.ParseError(n))
		}
		b = b[n:]
		switch num {
		case redeemFailed:
			o.Failed = v != 0
		case redeemLatency:
			o.Latency = time.Duration(v)
		}
	}
	return ticket, o, nil
}
