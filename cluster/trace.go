package cluster

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// traced runs a proposal within a span of its own where the caller is being traced.
func (n *Node) traced(ctx context.Context, c *call) []Outcome {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return n.propose(ctx, c)
	}
	ctx, span := otel.Tracer("github.com/muster-registry/muster/cluster").Start(ctx, "cluster.propose",
		trace.WithAttributes(attribute.Int("muster.operations", len(c.ops)), attribute.Bool("muster.leading", n.session.Load() != nil)))
	defer span.End()
	outs := n.propose(ctx, c)
	for _, o := range outs {
		if o.Err != nil {
			span.SetStatus(codes.Error, o.Err.Error())
			break
		}
	}
	return outs
}
