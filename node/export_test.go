package node

import (
	"context"
	"log/slog"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// Transitions is what writes transitions to the log, for tests.
type Transitions struct{ *transitions }

func NewTransitions(log *slog.Logger, level slog.Leveler, leads func() bool) Transitions {
	t := newTransitions(log, level)
	t.leads = leads
	return Transitions{t}
}

func (t Transitions) Tell(events ...*muster.Event) {
	t.Applied(fsm.Changes{Entries: []fsm.Entry{{Index: 1, Events: events}}})
}

func (t Transitions) Run(ctx context.Context) { t.run(ctx) }

// Lines is the handler of a node's log, for tests.
func Lines(h slog.Handler, level slog.Leveler) slog.Handler { return lines{h, level} }
