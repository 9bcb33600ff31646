package lease

import (
	"context"
	"time"

	"github.com/muster-registry/muster"
)

// lookups is how often a name is looked up before it counts as unknown, where
// the state changes under the look-up.
const lookups = 3

// renewal is a batch of heartbeats on its way through a session.
type renewal struct {
	names   []Name
	results []Result
	ids     []muster.LeaseID // merged
	todo    []int            // places in names that have no result yet
	flights []*flight        // what some of todo wait for
	ahead   uint64           // index that some of todo wait to be observed
}

// beat renews what is named and returns once a majority stands behind all that it
// says. Leases that are being removed wait for the outcome, or without wait are
// answered as pending.
func (s *session) beat(ctx context.Context, names []Name, wait bool) ([]Result, error) {
	b := &renewal{names: names, results: make([]Result, len(names)), todo: make([]int, len(names))}
	b.ids = make([]muster.LeaseID, 0, len(names))
	for i := range names {
		b.todo[i] = i
	}
	for try := 1; ; try++ {
		found := s.find(b)
		now := s.k.now()
		s.k.mu.Lock()
		s.renew(b, found, try >= lookups, now)
		if len(b.todo) == 0 || !wait && b.ahead == 0 {
			for _, i := range b.todo {
				b.results[i] = Result{State: beatPending}
			}
			r, err := s.join(b.ids, now)
			s.k.mu.Unlock()
			if err == nil {
				err = r.wait(ctx)
			}
			return b.results, err
		}
		s.k.mu.Unlock()
		if err := s.await(ctx, b); err != nil {
			return nil, err
		}
	}
}

// find looks up the leases of what is named by instance; nil where nothing is.
func (s *session) find(b *renewal) map[int]muster.LeaseID {
	var found map[int]muster.LeaseID
	todo := b.todo[:0]
	for _, i := range b.todo {
		n := &b.names[i]
		if n.Lease != 0 {
			todo = append(todo, i)
			continue
		}
		id, incarnation, ok := s.k.state.Find(n.Instance)
		switch {
		case !ok:
			b.results[i].State = BeatUnknown
		case n.Incarnation != 0 && n.Incarnation < incarnation:
			b.results[i].State = BeatFenced
		case id == 0:
			b.results[i].State = BeatPersistent
		default:
			if found == nil {
				found = make(map[int]muster.LeaseID, len(b.todo))
			}
			found[i] = id
			todo = append(todo, i)
		}
	}
	b.todo = todo
	return found
}

// renew gives a result to all of todo that need not wait, and merges those that
// are renewed into our table: the first of a voter's two steps. The keeper holds
// its mutex, so that no expiry of theirs can be decided between.
func (s *session) renew(b *renewal, found map[int]muster.LeaseID, last bool, now time.Duration) {
	first := len(b.ids)
	todo := b.todo[:0]
	b.flights, b.ahead = b.flights[:0], 0
	var touched []*record // neither in the wheel nor in flight
	for _, i := range b.todo {
		id := b.names[i].Lease
		if id == 0 {
			id = found[i]
		}
		rec := s.led.records[id]
		switch {
		case rec == nil && b.names[i].Lease == 0 && !last:
			// The view shows it already and the ledger not yet, or the other way
			// round: look again once they agree.
			b.ahead = max(b.ahead, id.Index())
			todo = append(todo, i)
		case rec == nil:
			b.results[i].State = BeatUnknown
		case rec.flight != nil && rec.flight.Kind.removes():
			b.flights = append(b.flights, rec.flight)
			todo = append(todo, i)
		default:
			b.results[i] = Result{State: BeatRenewed, TTL: rec.ttl}
			b.ids = append(b.ids, id)
			if rec.due || rec.suspect {
				touched = append(touched, rec)
			}
		}
	}
	b.todo = todo
	s.k.table.Merge(b.ids[first:], now)
	for _, rec := range touched {
		s.led.renew(rec, now)
	}
}

// await waits for what the rest of a batch waits for.
func (s *session) await(ctx context.Context, b *renewal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	if err := s.k.waitObserved(ctx, b.ahead); err != nil {
		return errNoLeader().WithCause(err)
	}
	for _, f := range b.flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return errNoLeader().WithCause(context.Cause(ctx))
		}
	}
	return nil
}
