package fsm

import (
	"slices"

	"github.com/muster-registry/muster"
)

// maxJournal bounds the transitions that are remembered.
const maxJournal = 10_000

// journal holds the latest transitions, without the bodies of instances. What
// was appended is never written again, so that a reader or a snapshot may keep
// the slice that latest returns.
type journal struct {
	events []*muster.Event // up to 2*maxJournal, of which the last maxJournal count
	// dropped is the index of the newest event that is no longer kept.
	dropped uint64
}

func (j *journal) add(e *muster.Event) {
	if len(j.events) >= maxJournal {
		j.dropped = j.events[len(j.events)-maxJournal].Index
	}
	if len(j.events) == 2*maxJournal {
		j.events = append(make([]*muster.Event, 0, 2*maxJournal), j.events[maxJournal:]...)
	}
	j.events = append(j.events, e)
}

func (j *journal) latest() []*muster.Event {
	n := len(j.events)
	return j.events[max(0, n-maxJournal):n:n]
}

// Events answers q from the journal. An event without a service is about the
// whole registry (a restore) and answers every query.
func (f *FSM) Events(q muster.EventQuery) muster.Events {
	f.mu.RLock()
	events, dropped, index := f.st.journal.latest(), f.st.journal.dropped, f.Index()
	f.mu.RUnlock()

	limit := q.Limit
	if limit <= 0 {
		limit = muster.DefaultEventsLimit
	}
	limit = min(limit, muster.MaxEvents)
	answer := muster.Events{Index: index, Events: []*muster.Event{}, Truncated: dropped > q.Since}
	for n := len(events) - 1; n >= 0 && events[n].Index > q.Since; n-- {
		if !matches(events[n], &q) {
			continue
		}
		if len(answer.Events) == limit {
			answer.Truncated = true
			break
		}
		answer.Events = append(answer.Events, events[n])
	}
	slices.Reverse(answer.Events)
	return answer
}

func matches(e *muster.Event, q *muster.EventQuery) bool {
	return e.Service == "" ||
		(q.Namespace == "" || e.Namespace == q.Namespace) &&
			(q.Service == "" || e.Service == q.Service) &&
			(q.Instance == "" || e.ID == q.Instance)
}
