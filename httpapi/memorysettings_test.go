package httpapi_test

import (
	"context"

	"github.com/muster-registry/muster"
)

func (m *memory) Settings(_ context.Context, k muster.ServiceKey, _ muster.ReadOptions) (muster.Settings, muster.ReadInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k.Namespace, _ = muster.CleanNamespace(k.Namespace)
	info := muster.ReadInfo{Index: max(m.index, 1)}
	switch own := m.settings[k]; {
	case own != nil:
		return *own, info, nil
	case m.views[k] == nil:
		return muster.Settings{}, info, muster.Errorf(muster.CodeUnknownService, "no service %s was ever registered", k)
	}
	return muster.DefaultSettings(), info, nil
}

func (m *memory) Configure(ctx context.Context, _ muster.Caller, k muster.ServiceKey, s *muster.Settings) (muster.Written, error) {
	if err := m.begin(ctx); err != nil {
		return muster.Written{}, err
	}
	if s != nil {
		if err := s.Validate(); err != nil {
			return muster.Written{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k.Namespace, _ = muster.CleanNamespace(k.Namespace)
	m.index++
	m.settings[k] = s
	return muster.Written{Index: m.index, Changed: true}, nil
}

func (m *memory) Governor() muster.Governor {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := muster.Governor{Enabled: !m.ungoverned}
	if m.ungoverned {
		g.Since, g.Actor = epoch, "ip:192.0.2.7"
	}
	return g
}

func (m *memory) SwitchGovernor(ctx context.Context, _ muster.Caller, on bool) (muster.Written, error) {
	if err := m.begin(ctx); err != nil {
		return muster.Written{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index++
	m.ungoverned = !on
	return muster.Written{Index: m.index, Changed: true}, nil
}
