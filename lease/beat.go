package lease

import (
	"context"
	"errors"
	"time"

	"github.com/muster-registry/muster"
)

// Name says for whom a heartbeat is: a lease, or an instance where Lease is zero.
type Name struct {
	Lease    muster.LeaseID
	Instance muster.InstanceKey
	// Incarnation of the instance that beats; 0 asks for no fencing.
	Incarnation uint64
}

// Standing is what the leader says of one heartbeat.
type Standing uint8

// The standings.
const (
	// BeatRenewed: it lives for another TTL.
	BeatRenewed Standing = iota
	// BeatUnknown: there is no such lease or instance; register again.
	BeatUnknown
	// BeatFenced: an older incarnation spoke.
	BeatFenced
	// BeatPersistent: the instance has no lease and needs no heartbeats.
	BeatPersistent
	// beatPending: an expiry is in flight; ask again and wait.
	beatPending
	standings
)

// Result is what became of one heartbeat.
type Result struct {
	State Standing
	TTL   time.Duration // of the lease that was renewed
}

// Answer is what became of a batch of heartbeats.
type Answer struct {
	// Results are in the order of the names.
	Results []Result
	// TTL is the shortest of those renewed, 0 if none was.
	TTL time.Duration
	// Next is when to beat again; 0 where nothing was renewed.
	Next time.Duration
}

const (
	// beatTimeout bounds a heartbeat whose caller set no deadline.
	beatTimeout = 5 * time.Second
	// beatRetry is the pause before a heartbeat is tried again without a leader.
	beatRetry = 100 * time.Millisecond
)

// Beat renews up to muster.MaxHeartbeatItems leases. Any node takes it and passes
// it to the leader, within ctx again and again while there is none: a renewal is
// safe to repeat. It returns once the leader has an answer that a majority stands
// behind, so that neither "renewed" nor "unknown" comes from a deposed leader.
// Errors are *muster.Error: no_leader, overloaded, shutting_down.
func (k *Keeper) Beat(ctx context.Context, names []Name) (Answer, error) {
	if len(names) == 0 || len(names) > muster.MaxHeartbeatItems {
		return Answer{}, muster.Errorf(muster.CodeConflictingField, "%d heartbeats are not 1 to %d", len(names), muster.MaxHeartbeatItems)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, beatTimeout)
		defer cancel()
	}
	for {
		results, stretch, err := k.beat(ctx, names)
		if err == nil {
			return k.answer(results, stretch), nil
		}
		if errors.Is(err, muster.CodeOverloaded) {
			k.shed(len(names))
		}
		if !errors.Is(err, muster.CodeNoLeader) || !pause(ctx, beatRetry) {
			k.metrics.beats.WithLabelValues("refused").Add(float64(len(names)))
			return Answer{}, err
		}
	}
}

// beat asks the leader, this node or another, once. Those that wait for an expiry
// in flight are asked about apart, so that they hold up nobody else.
func (k *Keeper) beat(ctx context.Context, names []Name) ([]Result, int, error) {
	results, stretch, err := k.ask(ctx, names, false)
	if err != nil {
		return nil, 0, err
	}
	var pending []Name
	for i := range results {
		if results[i].State == beatPending {
			pending = append(pending, names[i])
		}
	}
	if len(pending) == 0 {
		return results, stretch, nil
	}
	late, _, err := k.ask(ctx, pending, true)
	if err != nil {
		return nil, 0, err
	}
	for i := range results {
		if results[i].State == beatPending {
			results[i], late = late[0], late[1:]
		}
	}
	return results, stretch, nil
}

func (k *Keeper) ask(ctx context.Context, names []Name, wait bool) ([]Result, int, error) {
	if s := k.leading(); s != nil {
		results, err := s.beat(ctx, names, wait)
		return results, s.stretch(), err
	}
	if wait {
		return k.slow.submit(ctx, names)
	}
	return k.fast.submit(ctx, names)
}

func (k *Keeper) answer(results []Result, stretch int) Answer {
	a := Answer{Results: results}
	var n [standings]int
	for _, r := range results {
		if n[r.State]++; r.State == BeatRenewed && (a.TTL == 0 || r.TTL < a.TTL) {
			a.TTL = r.TTL
		}
	}
	for state, label := range [...]string{"renewed", "unknown", "fenced", "persistent"} {
		if n[state] > 0 {
			k.metrics.beats.WithLabelValues(label).Add(float64(n[state]))
		}
	}
	if a.TTL > 0 {
		a.Next = next(a.TTL, stretch)
	}
	return a
}

// Remaining returns how long a lease still runs on the word of the leader; 0 for
// one that ran out and is held or about to end. The error is unknown_lease where
// there is none.
func (k *Keeper) Remaining(ctx context.Context, id muster.LeaseID) (time.Duration, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, beatTimeout)
		defer cancel()
	}
	for {
		ack, err := k.look(ctx, id)
		switch {
		case err == nil && ack.known:
			return ack.remaining, nil
		case err == nil:
			return 0, muster.Errorf(muster.CodeUnknownLease, "there is no lease %s", id).WithHint("it ended; register again")
		case !errors.Is(err, muster.CodeNoLeader) || !pause(ctx, beatRetry):
			return 0, err
		}
	}
}

func (k *Keeper) look(ctx context.Context, id muster.LeaseID) (ack lookAck, err error) {
	if s := k.leading(); s != nil {
		return s.look(ctx, id)
	}
	leader, _ := k.raft.Leader()
	if leader == "" || leader == k.raft.ID() {
		return ack, errNoLeader()
	}
	ctx, cancel := context.WithTimeout(ctx, k.cfg.CallTimeout)
	defer cancel()
	body, err := k.peers.Call(ctx, leader, methodLook, (&lookMsg{id}).append(nil))
	if err != nil {
		return ack, asNoLeader(err)
	}
	return ack, asNoLeader(ack.parse(body))
}

func errNoLeader() *muster.Error {
	return muster.Errorf(muster.CodeNoLeader, "no leader has taken the heartbeat").
		WithHint("try again; nothing expires while there is no leader").WithRetryAfter(time.Second)
}

// asNoLeader makes an error of passing a heartbeat on one that may be tried
// again, which a renewal always may.
func asNoLeader(err error) error {
	if err == nil || errors.Is(err, muster.CodeOverloaded) || errors.Is(err, muster.CodeShuttingDown) {
		return err
	}
	return errNoLeader().WithCause(err)
}

// pause waits d and reports whether ctx still lasts.
func pause(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false // the answer would come too late: say now that there is none
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
