package node

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// The bounds of what transitions may take of the log: in a mass loss a hundred
// thousand instances go, and the journal has them all.
const (
	transitionBuffer = 2048 // that wait to be written
	transitionRate   = 100  // lines a second at level info
)

// transitions writes a line of each transition to the log: of those that say that
// something failed, came back, or was switched by an operator at level info; of
// registrations, updates and deregistrations, the everyday, at level debug. The
// leader alone writes them, so that a cluster's logs have each once, and a log that
// is read again after a start has none.
type transitions struct {
	log   *slog.Logger
	level slog.Leveler // what log lets pass
	// leads reports whether this node leads now. It must be cheap.
	leads  func() bool
	events chan *muster.Event
	missed atomic.Int64 // could not wait
}

func newTransitions(log *slog.Logger, level slog.Leveler) *transitions {
	return &transitions{log: log, level: level, events: make(chan *muster.Event, transitionBuffer)}
}

// transitionLevel is at which level a transition shows. Unknown causes are of a later
// version, and are shown.
func transitionLevel(c muster.Cause) slog.Level {
	switch c {
	case muster.CauseRegistered, muster.CauseUpdated, muster.CauseDeregistered:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// Applied is called on raft's goroutine: writing, which may block, is left to run.
func (t *transitions) Applied(c fsm.Changes) {
	if len(c.Entries) == 0 || !t.leads() {
		return
	}
	least := t.level.Level()
	if least > slog.LevelInfo {
		return // none would be written: none is left out either
	}
	for _, e := range c.Entries {
		for _, ev := range e.Events {
			if transitionLevel(ev.Cause) < least {
				continue
			}
			select {
			case t.events <- ev:
			default:
				t.missed.Add(1)
			}
		}
	}
}

// run writes the lines until ctx ends.
func (t *transitions) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	written, left := 0, int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-t.events:
			switch at := transitionLevel(ev.Cause); {
			case at < t.level.Level():
				continue // which was lower when it was queued
			case at == slog.LevelInfo:
				if written++; written > transitionRate {
					left++
					continue
				}
			}
			t.write(ev)
		case <-tick.C:
			written = 0
			if left += t.missed.Swap(0); left > 0 {
				t.log.Warn("transitions left out of the log, the journal has them", "suppressed", left)
				left = 0
			}
		}
	}
}

func (t *transitions) write(ev *muster.Event) {
	args := []any{"type", string(ev.Type), "cause", string(ev.Cause), "service", muster.ServiceKey{Namespace: ev.Namespace, Service: ev.Service}.String(), "index", ev.Index}
	if ev.ID != "" {
		key := muster.InstanceKey{Namespace: ev.Namespace, Service: ev.Service, ID: ev.ID}
		args = append(args, "instance", key.String(), "prev_status", string(ev.PrevStatus), "status", string(ev.Status))
	}
	if ev.Actor != "" {
		args = append(args, "actor", ev.Actor)
	}
	if ev.Reason != "" {
		args = append(args, "reason", ev.Reason)
	}
	if transitionLevel(ev.Cause) == slog.LevelDebug {
		t.log.Debug("transition", args...)
		return
	}
	t.log.Info("transition", args...)
}
