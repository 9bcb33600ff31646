package registry

import (
	"context"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/lease"
)

// Keeper is what the registry needs of whoever keeps the leases. Both methods
// are called concurrently and answer on the leader's word.
type Keeper interface {
	Beat(ctx context.Context, names []lease.Name) (lease.Answer, error)
	Remaining(ctx context.Context, id muster.LeaseID) (time.Duration, error)
}

// Heartbeat renews the lease an instance hangs on. Incarnation fences it where
// it is not 0.
func (r *Registry) Heartbeat(ctx context.Context, k muster.InstanceKey, incarnation uint64) (muster.Beat, error) {
	if err := k.Clean(); err != nil {
		return muster.Beat{}, err
	}
	return r.beat(ctx, lease.Name{Instance: k, Incarnation: incarnation})
}

// HeartbeatLease renews a lease.
func (r *Registry) HeartbeatLease(ctx context.Context, id muster.LeaseID) (muster.Beat, error) {
	return r.beat(ctx, lease.Name{Lease: id})
}

func (r *Registry) beat(ctx context.Context, name lease.Name) (muster.Beat, error) {
	a, err := r.keeper.Beat(ctx, []lease.Name{name})
	if err != nil {
		return muster.Beat{}, err
	}
	switch res := a.Results[0]; {
	case res.State == lease.BeatFenced:
		return muster.Beat{}, muster.Errorf(muster.CodeFenced, "a later incarnation of %s is registered", name.Instance).
			WithHint("another process has taken this instance over: stop beating for it")
	case res.State == lease.BeatPersistent:
		return muster.Beat{TTL: muster.NoTTL}, nil
	case res.State == lease.BeatUnknown && name.Lease != 0:
		return muster.Beat{}, muster.Errorf(muster.CodeUnknownLease, "there is no lease %s (any more)", name.Lease).
			WithHint("it ran out or was revoked: make a new lease and register again")
	case res.State == lease.BeatUnknown:
		return muster.Beat{}, muster.Errorf(muster.CodeUnknownInstance, "there is no live instance %s (any more)", name.Instance).
			WithHint("it expired or was taken away: register again")
	default:
		return muster.Beat{TTL: muster.TTL(res.TTL), Next: muster.Duration(a.Next)}, nil
	}
}

// Heartbeats renews many leases at once.
func (r *Registry) Heartbeats(ctx context.Context, h muster.Heartbeats) (muster.Beats, error) {
	if n := len(h.Leases) + len(h.Instances); n > muster.MaxHeartbeatItems {
		return muster.Beats{}, muster.Errorf(muster.CodeBodyTooLarge, "%d heartbeats are more than the %d a batch may hold", n, muster.MaxHeartbeatItems).
			WithHint("send several batches")
	}
	names := make([]lease.Name, 0, len(h.Leases)+len(h.Instances))
	for _, id := range h.Leases {
		names = append(names, lease.Name{Lease: id})
	}
	for _, b := range h.Instances {
		k := b.Key()
		if err := k.Clean(); err != nil {
			return muster.Beats{}, err
		}
		if b.Incarnation > muster.MaxIncarnation {
			return muster.Beats{}, muster.Errorf(muster.CodeInvalidIndex, "the incarnation of %s is above 2^53-1", k)
		}
		names = append(names, lease.Name{Instance: k, Incarnation: b.Incarnation})
	}
	beats := muster.Beats{Unknown: []string{}}
	if len(names) == 0 {
		return beats, nil
	}
	a, err := r.keeper.Beat(ctx, names)
	if err != nil {
		return muster.Beats{}, err
	}
	for n, res := range a.Results {
		text := names[n].Lease.String()
		if text == "" {
			text = names[n].Instance.String()
		}
		switch res.State {
		case lease.BeatRenewed:
			beats.Renewed++
		case lease.BeatFenced:
			beats.Fenced = append(beats.Fenced, text)
		case lease.BeatPersistent:
			beats.Persistent = append(beats.Persistent, text)
		default:
			beats.Unknown = append(beats.Unknown, text)
		}
	}
	beats.Next = muster.Duration(a.Next)
	return beats, nil
}

// GrantLease makes a lease that many instances may name.
func (r *Registry) GrantLease(ctx context.Context, who muster.Caller, req muster.LeaseRequest) (*muster.Lease, uint64, error) {
	if err := req.Normalize(); err != nil {
		return nil, 0, err
	}
	res, err := r.propose(ctx, fsm.GrantLease{TTL: req.TTL, Name: req.Name, Caller: who})
	return res.Lease, res.Index, err
}

// Lease shows a lease, with the time it still has on the word of the leader.
func (r *Registry) Lease(ctx context.Context, id muster.LeaseID) (*muster.Lease, muster.ReadInfo, error) {
	if err := r.consensus.ReadIndex(ctx); err != nil {
		return nil, muster.ReadInfo{}, err
	}
	info := muster.ReadInfo{Index: r.state.Index()}
	l, ok := r.state.Lease(id)
	if !ok {
		return nil, info, muster.Errorf(muster.CodeUnknownLease, "there is no lease %s (any more)", id).
			WithHint("it ran out or was revoked; the journal says what became of its instances")
	}
	left, err := r.keeper.Remaining(ctx, id)
	if err != nil {
		return nil, info, err
	}
	l.Remaining = muster.Duration(left.Truncate(time.Millisecond))
	return l, info, nil
}

// RevokeLease ends a lease and takes away, in one entry, all that hangs on it.
func (r *Registry) RevokeLease(ctx context.Context, who muster.Caller, id muster.LeaseID) (muster.Written, error) {
	res, err := r.propose(ctx, fsm.RevokeLease{ID: id, Caller: who})
	return written(res), err
}
