package client

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

const (
	// persistentPace is how often it is asked whether an instance without a lease is
	// still there.
	persistentPace = 30 * time.Second
	// stopsAtOnce is how many deregistrations travel at the same time.
	stopsAtOnce = 16
	// A registration that failed is tried again after a pause with full jitter: at
	// most this long, the first time and the last.
	registerFirst = 200 * time.Millisecond
	registerMost  = 5 * time.Second
	// quotaPause is the pause after an answer that will not change soon.
	quotaPause = 10 * time.Second
)

// keeper keeps all sessions of a client: one goroutine registers, in batches, and
// one beats, in batches. They run while there are sessions.
type keeper struct {
	c *Client
	// turn is held while registrations are on their way, so that a deregistration
	// does not meet one of its own session.
	turn chan struct{}
	stop chan struct{} // a place for each deregistration on its way

	mu       sync.Mutex                      // guards the sessions' own fields, too
	sessions map[muster.InstanceKey]*Session // guarded by mu
	loops    *loops                          // guarded by mu; nil while there are no sessions
	last     uint64                          // guarded by mu: the last incarnation made
}

// loops are the two goroutines, from the first session to the last.
type loops struct {
	register, beat chan struct{} // room for one: look again
	end            context.CancelFunc
}

func newKeeper(c *Client) *keeper {
	return &keeper{
		c: c, turn: make(chan struct{}, 1), stop: make(chan struct{}, stopsAtOnce),
		sessions: map[muster.InstanceKey]*Session{},
	}
}

// incarnation makes one that is higher than all before.
func (k *keeper) incarnation(now time.Time) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = max(uint64(max(now.UnixMilli(), 1)), k.last+1)
	return k.last
}

// add takes a session in.
func (k *keeper) add(ctx context.Context, s *Session) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sessions[s.key] != nil {
		return muster.Errorf(muster.CodeConflict, "this client keeps %s registered already", s.key)
	}
	if err := k.c.start(ctx, s.run); err != nil {
		return err
	}
	k.sessions[s.key] = s
	if k.loops == nil {
		// They outlive the context of the session that came first, and the client's
		// Close, until the last session was deregistered.
		ctx, end := context.WithCancel(context.WithoutCancel(ctx))
		l := &loops{register: make(chan struct{}, 1), beat: make(chan struct{}, 1), end: end}
		k.loops = l
		k.c.running.Go(func() { k.registering(ctx, l.register) })
		k.c.running.Go(func() { k.beating(ctx, l.beat) })
	}
	k.rouse()
	return nil
}

// remove lets a session go.
func (k *keeper) remove(s *Session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.sessions, s.key)
	if len(k.sessions) == 0 {
		k.loops.end()
		k.loops = nil
	}
}

// rouse makes both goroutines look again. It is called with mu held.
func (k *keeper) rouse() {
	if k.loops == nil {
		return
	}
	for _, wake := range []chan struct{}{k.loops.register, k.loops.beat} {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// rest waits for d or until it is roused, and reports whether ctx still goes on.
func rest(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// idle is how long a goroutine with nothing to do waits to be roused.
const idle = time.Hour

// registration is what was to be registered of a session when it was sent.
type registration struct {
	s       *Session
	spec    *muster.Instance
	version uint64
}

// registering registers the sessions that want it until ctx ends.
func (k *keeper) registering(ctx context.Context, wake <-chan struct{}) {
	pauses := delays(registerFirst, registerMost)
	for {
		batch, next := k.wanting(time.Now())
		if len(batch) == 0 {
			if !rest(ctx, wake, next) {
				return
			}
			continue
		}
		k.turn <- struct{}{}
		k.send(ctx, batch, pauses.NextBackOff, pauses.Reset)
		<-k.turn
		if ctx.Err() != nil {
			return
		}
	}
}

// wanting returns what is to be registered now, one request's worth, which has one
// reason, and where that is nothing how long it may take until there is something.
func (k *keeper) wanting(now time.Time) ([]registration, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var batch []registration
	next := idle
	for _, s := range k.sessions {
		switch left := s.retry.Sub(now); {
		case !s.wanted || s.stopping:
		case left > 0:
			next = min(next, left)
		case s.alone && len(batch) == 0:
			s.tried = true
			return []registration{{s, s.spec, s.version}}, 0
		case s.alone, len(batch) > 0 && batch[0].s.reason != s.reason:
			next = 0 // after this batch
		case len(batch) < muster.MaxBatchItems:
			s.tried = true
			batch = append(batch, registration{s, s.spec, s.version})
		}
	}
	return batch, next
}

// send registers a batch.
func (k *keeper) send(ctx context.Context, batch []registration, pause func() time.Duration, calm func()) {
	specs := make([]*muster.Instance, len(batch))
	for n, r := range batch {
		// Normalized, and a weight of 0 means 0 by now.
		spec := *r.spec
		if spec.Weight == 0 {
			spec.Weight = NoTraffic
		}
		specs[n] = &spec
	}
	ctx, cancel := context.WithTimeout(ctx, k.c.cfg.Timeout)
	defer cancel()
	// What counts is the attempt that was taken, not those before it: a lease that is
	// older than its ttl the moment it is known would be lost again at once.
	sent := time.Now()
	noted := false
	items, err := k.c.RegisterBatch(ctx, specs, append(because(batch[0].s.reason), func(r *request) {
		if !noted { // a batch of several requests was sent when its first one was
			r.began, noted = &sent, true
		}
	})...)
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for n, item := range items {
		if item.Err != nil {
			batch[n].s.refused(item.Err, now, pause)
		} else {
			batch[n].s.taken(batch[n].version, sent)
		}
	}
	if err == nil {
		calm()
		k.rouse()
		return
	}
	rest := batch[len(items):]
	if e, coded := errors.AsType[*muster.Error](err); coded && problem.Status(e.Code) < http.StatusTooManyRequests && e.Code != CodeUnreachable {
		// A request that cannot be read is refused as a whole, though it may be one
		// instance that makes it so, with a field that this registry does not know.
		if len(rest) == 1 {
			rest[0].s.refused(err, now, pause)
		} else {
			for _, r := range rest {
				r.s.alone = true
			}
		}
		k.rouse()
		return
	}
	again := now.Add(min(pause(), registerMost))
	for _, r := range rest {
		r.s.retry = again
		if !r.s.live {
			r.s.set(r.s.state, err)
		}
	}
	k.c.cfg.Logger.Warn("registration failed and is tried again", "instances", len(rest), "err", err)
}

// because are the options of a write with a reason, if it has one.
func because(reason string) []Option {
	if reason == "" {
		return nil
	}
	return []Option{Reason(reason)}
}

// taken notes a registration that the registry took. It is called with mu held.
func (s *Session) taken(version uint64, sent time.Time) {
	if s.stopping {
		return
	}
	s.live, s.heard, s.alone = true, sent, false
	s.rounds++
	s.wanted = s.version != version
	s.due = sent.Add(persistentPace)
	if ttl := s.spec.TTL.Duration(); ttl > 0 {
		s.due = sent.Add(ttl / 3)
	}
	s.set(StateRegistered, nil)
}

// refused notes a registration that the registry refused. It is called with mu held.
func (s *Session) refused(err error, now time.Time, pause func() time.Duration) {
	e, _ := errors.AsType[*muster.Error](err)
	switch {
	case e.Code == muster.CodeFenced:
		s.finish(StateFenced, err)
	case isInvalid(e.Code):
		s.finish(StateEnded, err)
	default:
		wait := max(min(pause(), registerMost), min(e.RetryAfter, maxRetryAfter))
		if e.Code == muster.CodeQuotaExceeded || e.Code == muster.CodeForbidden {
			wait = quotaPause
		}
		s.retry = now.Add(wait)
		s.set(s.state, err)
	}
}

// isInvalid reports whether the same registration will never be taken.
func isInvalid(code muster.Code) bool {
	switch code {
	case muster.CodeInvalidJSON, muster.CodeUnknownField, muster.CodeInvalidName, muster.CodeInvalidAddress, muster.CodeInvalidPort,
		muster.CodeInvalidDuration, muster.CodeTTLOutOfRange, muster.CodeInvalidCheck, muster.CodeMetadataTooLarge,
		muster.CodeConflictingField, muster.CodeInvalidIndex, muster.CodeBodyTooLarge:
		return true
	}
	return false
}

// deregister takes the instance of a session away that registers no more.
func (k *keeper) deregister(ctx context.Context, s *Session) error {
	// What is on its way now must not arrive after the deregistration.
	for _, gate := range []chan struct{}{k.turn, k.stop} {
		select {
		case gate <- struct{}{}:
		case <-ctx.Done():
			return muster.Errorf(muster.CodeOutcomeUnknown, "%s was not deregistered in time", s.key).
				WithHint("it goes by itself when its lease runs out").WithCause(context.Cause(ctx))
		}
		if gate == k.turn {
			<-k.turn
		}
	}
	defer func() { <-k.stop }()
	_, err := k.c.Deregister(ctx, s.key.Service, s.key.ID, append(because(s.reason), In(s.key.Namespace), Incarnation(s.spec.Incarnation))...)
	switch muster.CodeOf(err) {
	case muster.CodeUnknownInstance, muster.CodeUnknownService, muster.CodeFenced:
		return nil // it never was, or is somebody else's by now
	}
	return err
}
