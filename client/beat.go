package client

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

const (
	minBeatAttempt = 250 * time.Millisecond // how long a node may take for a heartbeat, at least
	minBeatPause   = 100 * time.Millisecond
	maxBeatPause   = 2 * time.Second
)

// pulse is what is sent of a session in a batch of heartbeats.
type pulse struct {
	s           *Session
	rounds      uint64
	incarnation uint64
	ttl         time.Duration // 0: persistent
}

// beating sends the heartbeats of all sessions until ctx ends.
func (k *keeper) beating(ctx context.Context, wake <-chan struct{}) {
	for {
		batch, tightest, next := k.beatable(time.Now())
		if len(batch) == 0 {
			if !rest(ctx, wake, next) {
				return
			}
			continue
		}
		if k.pulse(ctx, batch, tightest); ctx.Err() != nil {
			return
		}
	}
}

// beatable returns the sessions whose heartbeat is due, and with them those whose
// is soon: so they come to travel together. Where none is due it says how long until
// one is. tightest is the shortest TTL of all, also of those that are not due: none
// may have to wait for the others for too long.
func (k *keeper) beatable(now time.Time) (batch []pulse, tightest, next time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lose(now)
	next = idle
	reach := time.Duration(-1)
	for _, s := range k.sessions {
		if !s.live || s.stopping {
			continue
		}
		if ttl := s.spec.TTL.Duration(); ttl > 0 && (tightest == 0 || ttl < tightest) {
			tightest = ttl
		}
		left := s.due.Sub(now)
		if next = min(next, max(left, 0)); left <= 0 {
			// The short ones must not draw the long ones into every batch of theirs.
			reach = max(reach, s.spec.TTL.Duration()/6)
		}
	}
	if reach < 0 {
		return nil, tightest, next
	}
	for _, s := range k.sessions {
		ttl := s.spec.TTL.Duration()
		if s.live && !s.stopping && s.due.Sub(now) <= min(reach, ttl/6) {
			batch = append(batch, pulse{s, s.rounds, s.spec.Incarnation, ttl})
		}
	}
	if len(batch) > muster.MaxHeartbeatItems {
		slices.SortFunc(batch, func(a, b pulse) int { return a.s.due.Compare(b.s.due) })
		batch = batch[:muster.MaxHeartbeatItems]
	}
	return batch, tightest, 0
}

// lose finds the sessions that were not heard for too long: registering tells the
// same as a heartbeat, and heals what became of them. It is called with mu held.
func (k *keeper) lose(now time.Time) {
	lost := 0
	for _, s := range k.sessions {
		ttl := s.spec.TTL.Duration()
		if !s.live || s.stopping || ttl == 0 || age(now, s.heard) < ttl {
			continue
		}
		s.live, s.wanted, s.retry = false, true, time.Time{}
		s.set(StateLost, muster.Errorf(CodeUnreachable, "no node took a heartbeat of %s for its ttl of %s", s.key, ttl))
		lost++
	}
	if lost > 0 {
		k.c.cfg.Logger.Warn("sessions lost: the registry was not reached within their ttl", "instances", lost)
		k.rouse()
	}
}

// age is how long ago t was. The monotonic clock stands still while the machine
// sleeps, and the wall clock can be set: the longer of the two counts. A wall clock
// that is set back so changes nothing, and one that is set forward costs a
// registration, which is one that the registry has already.
func age(now, t time.Time) time.Duration {
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// pulse sends one batch of heartbeats.
func (k *keeper) pulse(ctx context.Context, batch []pulse, tightest time.Duration) {
	shortest := time.Duration(0)
	h := muster.Heartbeats{Instances: make([]muster.InstanceBeat, len(batch))}
	for n, p := range batch {
		key := p.s.key
		h.Instances[n] = muster.InstanceBeat{Namespace: key.Namespace, Service: key.Service, ID: key.ID, Incarnation: p.incarnation}
		if p.ttl > 0 && (shortest == 0 || p.ttl < shortest) {
			shortest = p.ttl
		}
	}
	sent := time.Now()
	beats, err := k.sendBeats(ctx, h, tightest)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		wait := min(max(shortest/10, minBeatPause), maxBeatPause)
		wait = wait/2 + rand.N(wait/2)
		again := time.Now().Add(max(wait, min(retryAfterOf(err), shortest/3)))
		for _, p := range batch {
			p.s.due = again
		}
		k.c.cfg.Logger.Debug("heartbeats failed and are sent again", "instances", len(batch), "err", err)
		return
	}
	k.heard(batch, beats, sent, shortest)
}

// sendBeats asks one node after the other, each so briefly that all have their turn
// before the tightest TTL is over.
func (k *keeper) sendBeats(ctx context.Context, h muster.Heartbeats, tightest time.Duration) (*muster.Beats, error) {
	body, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	r := k.c.newCall(http.MethodPost, "/v1/heartbeats", nil)
	r.body = body
	r.attempt = k.c.cfg.AttemptTimeout
	if tightest > 0 {
		r.attempt = min(r.attempt, max(tightest/4, minBeatAttempt))
	}
	ctx, cancel := context.WithTimeout(ctx, r.attempt*time.Duration(len(k.c.nodes.all))+minBeatPause)
	defer cancel()
	return read[muster.Beats](ctx, k.c, r)
}

// heard notes the answer to a batch. It is called with mu held.
func (k *keeper) heard(batch []pulse, beats *muster.Beats, sent time.Time, shortest time.Duration) {
	gone, fenced := set(beats.Unknown), set(beats.Fenced)
	roused := false
	for _, p := range batch {
		s, name := p.s, p.s.key.String()
		if s.stopping || s.rounds != p.rounds {
			continue // what was registered meanwhile is not what was asked about
		}
		switch {
		case fenced[name]:
			s.finish(StateFenced, muster.Errorf(muster.CodeFenced, "a later incarnation of %s than %d is registered", s.key, p.incarnation).
				WithHint("another process has taken this instance over"))
		case gone[name]:
			s.live, s.wanted, s.retry = false, true, time.Time{}
			s.set(StateRegistering, muster.Errorf(muster.CodeUnknownInstance, "the registry had lost %s", s.key))
			roused = true
		default:
			s.heard = sent
			s.due = sent.Add(pace(p.ttl, time.Duration(beats.Next), shortest))
		}
	}
	if roused {
		k.rouse()
	}
}

// pace is when to beat next for a lease of ttl, where the registry asked for next
// because of the shortest of the batch.
func pace(ttl, next, shortest time.Duration) time.Duration {
	if ttl == 0 {
		return persistentPace
	}
	if next <= 0 || shortest == 0 {
		return ttl / 3
	}
	d := time.Duration(float64(next) * float64(ttl) / float64(shortest))
	return min(max(d, minBeatPause), ttl*4/5)
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}
