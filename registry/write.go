package registry

import (
	"context"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// Register puts an instance under its key, replacing what was there; an
// identical one only renews its lease. It normalizes inst in place.
func (r *Registry) Register(ctx context.Context, who muster.Caller, inst *muster.Instance, cond muster.Condition) (muster.Written, error) {
	if err := inst.Normalize(); err != nil {
		return muster.Written{}, err
	}
	res, err := r.propose(ctx, fsm.Register{Caller: who, Instance: inst, Cond: cond})
	return written(res), err
}

// RegisterBatch registers each instance on its own: one that is refused does not
// stop the others. It answers an item for each, in order. The batch may span
// several log entries.
func (r *Registry) RegisterBatch(ctx context.Context, who muster.Caller, insts []*muster.Instance) ([]muster.BatchItem, error) {
	if len(insts) > muster.MaxBatchItems {
		return nil, muster.Errorf(muster.CodeBodyTooLarge, "%d instances are more than the %d a batch may hold", len(insts), muster.MaxBatchItems).
			WithHint("send several batches")
	}
	items := make([]muster.BatchItem, len(insts))
	ops := make([][]byte, 0, len(insts))
	places := make([]int, 0, len(insts))
	for n, inst := range insts {
		err := inst.Normalize()
		items[n].Key = muster.InstanceKey{Namespace: inst.Namespace, Service: inst.Service, ID: inst.ID}
		if err != nil {
			items[n].Err = err
			continue
		}
		ops = append(ops, fsm.Encode(fsm.Register{Caller: who, Instance: inst}))
		places = append(places, n)
	}
	if len(ops) == 0 {
		return items, nil
	}
	last := uint64(0)
	for k, o := range r.consensus.Propose(ctx, ops) {
		res, err := r.result(ctx, o)
		items[places[k]].Written, items[places[k]].Err = written(res), err
		last = max(last, res.Index)
	}
	r.settle(ctx, last)
	return items, nil
}

// Deregister takes an instance away on purpose. It is not an error if it is gone
// already and that is remembered; where nothing was ever known of it the answer
// is CodeUnknownInstance, on the word of the log.
func (r *Registry) Deregister(ctx context.Context, who muster.Caller, k muster.InstanceKey, incarnation uint64, cond muster.Condition) (muster.Written, error) {
	if err := k.Clean(); err != nil {
		return muster.Written{}, err
	}
	res, err := r.propose(ctx, fsm.Deregister{Caller: who, Key: k, Incarnation: incarnation, Cond: cond})
	return written(res), err
}

// SetOverride lays the operator's word over an instance until it is cleared or
// its time is up.
func (r *Registry) SetOverride(ctx context.Context, who muster.Caller, k muster.InstanceKey, o muster.Override) (muster.Written, error) {
	if err := k.Clean(); err != nil {
		return muster.Written{}, err
	}
	if err := o.Validate(); err != nil {
		return muster.Written{}, err
	}
	if o.Reason == "" {
		o.Reason = who.Reason
	}
	o.Actor = who.Actor
	res, err := r.propose(ctx, fsm.SetOverride{Caller: who, Key: k, Override: o})
	return written(res), err
}

// ClearOverride takes the operator's word off an instance; it is not an error if
// there was none.
func (r *Registry) ClearOverride(ctx context.Context, who muster.Caller, k muster.InstanceKey) (muster.Written, error) {
	if err := k.Clean(); err != nil {
		return muster.Written{}, err
	}
	res, err := r.propose(ctx, fsm.ClearOverride{Caller: who, Key: k})
	return written(res), err
}
