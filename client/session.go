package client

import (
	"context"
	"errors"
	"time"

	"github.com/muster-registry/muster"
)

// State is how a session stands.
type State string

// The states of a session.
const (
	// StateRegistering: it is not in the registry, and every effort is made.
	StateRegistering State = "registering"
	// StateRegistered: the registry has it, and heard from it within its TTL.
	StateRegistered State = "registered"
	// StateLost: for longer than its TTL no node took a heartbeat. The registry may
	// have dropped it; it registers again as soon as a node answers.
	StateLost State = "lost"
	// StateDraining: its end has begun. It takes no new traffic, for as long as Drain
	// says, and is deregistered then.
	StateDraining State = "draining"
	// StateFenced: a later incarnation is registered, or took it away. It is over.
	StateFenced State = "fenced"
	// StateEnded: it was deregistered, or refused for good. It is over.
	StateEnded State = "ended"
)

// Change is a session coming into a state.
type Change struct {
	State State
	At    time.Time
	// Err is why, if there is a reason: what keeps it from registering, what it was
	// refused with, why its end was not clean.
	Err error
}

// Session keeps one instance registered. It is safe for concurrent use.
type Session struct {
	keeper  *keeper
	key     muster.InstanceKey
	drain   time.Duration
	reason  string // of its registrations and its end
	changes chan Change
	over    chan struct{} // closed when the session ended by itself
	done    chan struct{} // closed when all is over
	end     context.CancelFunc

	// All that follows is guarded by keeper.mu.

	spec     *muster.Instance // immutable once it is set
	version  uint64           // of spec
	state    State
	err      error         // of the last change
	became   chan struct{} // closed at the next change
	live     bool          // the registry has it, as far as is known
	wanted   bool          // spec has to be registered (again)
	tried    bool          // a registration was ever sent
	stopping bool          // nothing is to be sent any more but the deregistration
	alone    bool          // to be registered in a request of its own
	rounds   uint64        // registrations that were taken
	heard    time.Time     // when the last beat or registration that was taken was sent
	due      time.Time     // when to beat next
	retry    time.Time     // no registration before that
}

// SessionOption changes a session.
type SessionOption func(*Session)

// Drain makes the end of the session gentle: the instance stays registered with
// weight 0, so that it gets no new traffic, for that long before it is deregistered.
func Drain(d time.Duration) SessionOption { return func(s *Session) { s.drain = max(0, d) } }

// Because is kept in the journal beside every registration of the session and beside
// its end, at most muster.MaxReasonLen bytes: why it is there, such as "deploy 1.4.2".
func Because(reason string) SessionOption { return func(s *Session) { s.reason = reason } }

// changesKept is how many changes wait for a reader; the oldest goes first.
const changesKept = 16

// Register keeps an instance registered until ctx ends or the client is closed, and
// then deregisters it, within Config.StopTimeout. It returns at once: the registry
// need not be there yet. Where i.Incarnation is 0 it is made from the clock (unix
// milliseconds), so that an older process of the same instance is fenced; one that
// starts after its clock was set back is taken for an older one and ends fenced, so
// give it where clocks are not to be trusted.
//
// What the registry loses is registered again: after an expiry, a sleep of this
// machine, a lost cluster. Heartbeats of all sessions of a client travel together,
// at the pace the registry asks for.
//
// The error is that of an instance that no registry would take, or conflict where
// the client keeps the same one already. An instance on a shared lease is not for a
// session: PutInstance registers it and HeartbeatLease keeps it.
func (c *Client) Register(ctx context.Context, i muster.Instance, opts ...SessionOption) (*Session, error) {
	spec := c.outgoing(&i)
	if spec.LeaseID != 0 && spec.TTL == 0 {
		return nil, muster.Errorf(muster.CodeConflictingField, "a session keeps a lease of its own, not a shared one").
			WithHint("use PutInstance and HeartbeatLease, or give a TTL")
	}
	spec.LeaseID = 0
	if err := spec.Normalize(); err != nil {
		return nil, err
	}
	if spec.Incarnation == 0 {
		spec.Incarnation = c.keeper.incarnation(time.Now())
	}
	s := &Session{
		keeper: c.keeper, key: muster.InstanceKey{Namespace: spec.Namespace, Service: spec.Service, ID: spec.ID},
		changes: make(chan Change, changesKept), over: make(chan struct{}), done: make(chan struct{}),
		spec: spec, version: 1, wanted: true, became: make(chan struct{}),
	}
	for _, o := range opts {
		o(s)
	}
	if _, err := muster.CleanReason(s.reason); err != nil {
		return nil, err
	}
	s.set(StateRegistering, nil) // nobody else knows it yet
	ctx, s.end = context.WithCancel(ctx)
	if err := c.keeper.add(ctx, s); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// Key names the instance.
func (s *Session) Key() muster.InstanceKey { return s.key }

// Incarnation is that of the instance.
func (s *Session) Incarnation() uint64 {
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	return s.spec.Incarnation
}

// State is how the session stands, and why where there is a reason.
func (s *Session) State() (State, error) {
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	return s.state, s.err
}

// Changes tells every change of state, in order, and is closed at the end. A reader
// that is slow misses the oldest ones; State tells what is true now.
func (s *Session) Changes() <-chan Change { return s.changes }

// End begins the end of the session, as the end of its context does: Done tells when
// it is over. It may be called more than once.
func (s *Session) End() { s.end() }

// Done is closed when the session is over: deregistered, fenced or refused.
func (s *Session) Done() <-chan struct{} { return s.done }

// Next waits until the session stands in another state than last, "" for any, and
// returns it. Changes that come quickly one after the other may be seen as one; when
// the session is over it returns at once. The error is ctx's.
func (s *Session) Next(ctx context.Context, last State) (State, error) {
	for {
		s.keeper.mu.Lock()
		state, became := s.state, s.became
		s.keeper.mu.Unlock()
		if state != last || isOver(state) {
			return state, nil
		}
		select {
		case <-became:
		case <-ctx.Done():
			return state, context.Cause(ctx)
		}
	}
}

// Await waits until the session is registered. The error is ctx's, or says why the
// session is over.
func (s *Session) Await(ctx context.Context) error {
	for {
		s.keeper.mu.Lock()
		state, err, became := s.state, s.err, s.became
		s.keeper.mu.Unlock()
		switch state {
		case StateRegistered:
			return nil
		case StateDraining, StateFenced, StateEnded:
			if err == nil {
				err = muster.Errorf(muster.CodeShuttingDown, "the session is over")
			}
			return err
		}
		select {
		case <-became:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// Update changes what is registered, such as weight, tags or metadata. change is
// given a copy and must not touch names or incarnation. It returns at once, as
// Register does.
func (s *Session) Update(change func(*muster.Instance)) error {
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	if s.stopping || s.state == StateDraining || isOver(s.state) {
		return muster.Errorf(muster.CodeShuttingDown, "the session is over, or about to be")
	}
	next := clone(s.spec)
	change(next)
	incarnation := s.spec.Incarnation
	if next.Weight < 0 {
		next.Weight = 0
	}
	next.LeaseID = 0
	if err := next.Normalize(); err != nil {
		return err
	}
	if k := (muster.InstanceKey{Namespace: next.Namespace, Service: next.Service, ID: next.ID}); k != s.key || next.Incarnation != incarnation {
		return muster.Errorf(muster.CodeConflictingField, "an update cannot make %s another instance", s.key)
	}
	s.respec(next)
	return nil
}

// respec is called with keeper.mu held.
func (s *Session) respec(next *muster.Instance) {
	s.spec = next
	s.version++
	s.wanted, s.retry = true, time.Time{}
	s.keeper.rouse()
}

// clone copies an instance deep enough to change it.
func clone(i *muster.Instance) *muster.Instance {
	c := *i
	c.Ports = cloneMap(i.Ports)
	c.Meta = cloneMap(i.Meta)
	c.Tags = append([]string(nil), i.Tags...)
	c.Checks = append([]muster.Check(nil), i.Checks...)
	return &c
}

func cloneMap[V any](m map[string]V) map[string]V {
	c := make(map[string]V, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func isOver(state State) bool { return state == StateFenced || state == StateEnded }

// set brings the session into a state; where it is there already only the error is
// noted. What drains comes to nothing but its end. It is called with keeper.mu held.
func (s *Session) set(state State, err error) {
	if isOver(s.state) {
		return
	}
	s.err = err
	if s.state == state || s.state == StateDraining && !isOver(state) {
		return
	}
	s.state = state
	close(s.became)
	s.became = make(chan struct{})
	ch := Change{State: state, At: time.Now(), Err: err}
	for {
		select {
		case s.changes <- ch:
			if isOver(state) {
				close(s.changes)
			}
			return
		default:
		}
		select {
		case <-s.changes: // the oldest
		default:
		}
	}
}

// finish ends a session that the registry ended. It is called with keeper.mu held.
func (s *Session) finish(state State, err error) {
	if isOver(s.state) || s.stopping {
		return
	}
	s.live, s.wanted, s.stopping = false, false, true
	s.set(state, err)
	close(s.over)
}

// run waits for the end of the session and brings it about.
func (s *Session) run(ctx context.Context) {
	defer close(s.done)
	defer s.keeper.remove(s)
	defer s.end()
	select {
	case <-s.over:
		return
	case <-ctx.Done():
	}
	ctx = context.WithoutCancel(ctx)
	s.keeper.mu.Lock()
	s.set(StateDraining, nil)
	s.keeper.mu.Unlock()
	if s.drain > 0 {
		s.drained(ctx)
	}
	s.keeper.mu.Lock()
	if isOver(s.state) {
		s.keeper.mu.Unlock()
		return
	}
	s.stopping, s.live, s.wanted = true, false, false
	tried := s.tried
	s.keeper.mu.Unlock()
	var err error
	if tried {
		ctx, cancel := context.WithTimeout(ctx, s.keeper.c.cfg.StopTimeout)
		defer cancel()
		err = s.keeper.deregister(ctx, s)
	}
	s.keeper.mu.Lock()
	s.set(StateEnded, err)
	s.keeper.mu.Unlock()
}

// drained takes the instance out of traffic and waits, kept alive meanwhile.
func (s *Session) drained(ctx context.Context) {
	s.keeper.mu.Lock()
	if s.live && !isOver(s.state) {
		next := clone(s.spec)
		next.Weight = 0
		s.respec(next)
	}
	live := s.live
	s.keeper.mu.Unlock()
	if !live {
		return
	}
	t := time.NewTimer(s.drain)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.over:
	}
}
