package registry

import (
	"context"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// Settings answers the settings that hold for a service: its own, or the
// defaults. Where it has none and nothing was ever known of it the error is
// CodeUnknownService.
func (r *Registry) Settings(ctx context.Context, k muster.ServiceKey, o muster.ReadOptions) (muster.Settings, muster.ReadInfo, error) {
	k, err := cleanService(k)
	if err != nil {
		return muster.Settings{}, muster.ReadInfo{}, err
	}
	stale, err := r.current(ctx, o)
	if err != nil {
		return muster.Settings{}, muster.ReadInfo{}, err
	}
	v, info := r.look(k, stale)
	if own := r.state.Settings(k); own != nil {
		return *own, info, nil
	}
	if v == nil {
		return muster.Settings{}, info, unknownService(k)
	}
	return muster.DefaultSettings(), info, nil
}

// Configure gives a service settings of its own, also before its first instance
// has come; nil takes them away.
func (r *Registry) Configure(ctx context.Context, who muster.Caller, k muster.ServiceKey, s *muster.Settings) (muster.Written, error) {
	k, err := cleanService(k)
	if err != nil {
		return muster.Written{}, err
	}
	if s != nil {
		if err := s.Validate(); err != nil {
			return muster.Written{}, err
		}
	}
	res, err := r.propose(ctx, fsm.Configure{Key: k, Settings: s, Caller: who})
	return written(res), err
}

// Governor shows the expiry governor, as this node knows it.
func (r *Registry) Governor() muster.Governor { return r.state.Governor() }

// SwitchGovernor turns the expiry governor on or off for the whole cluster.
func (r *Registry) SwitchGovernor(ctx context.Context, who muster.Caller, on bool) (muster.Written, error) {
	res, err := r.propose(ctx, fsm.SwitchGovernor{On: on, Caller: who})
	return written(res), err
}
