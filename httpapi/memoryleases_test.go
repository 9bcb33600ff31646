package httpapi_test

import (
	"context"
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

// The leases of memory never run out: its clock stands still. Shared ones are
// found by the instances that name them.

func (m *memory) beat(ttl muster.TTL) muster.Beat {
	return muster.Beat{TTL: ttl, Next: muster.Duration(ttl.Duration() / 3)}
}

func (m *memory) find(k muster.InstanceKey) *muster.Instance {
	if v := m.views[muster.ServiceKey{Namespace: k.Namespace, Service: k.Service}]; v != nil {
		return v.Find(k.ID)
	}
	return nil
}

func (m *memory) Heartbeat(ctx context.Context, k muster.InstanceKey, incarnation uint64) (muster.Beat, error) {
	if err := m.begin(ctx); err != nil {
		return muster.Beat{}, err
	}
	if err := k.Clean(); err != nil {
		return muster.Beat{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.find(k)
	switch {
	case i == nil:
		return muster.Beat{}, muster.Errorf(muster.CodeUnknownInstance, "there is no live instance %s", k).WithHint("register again")
	case incarnation != 0 && incarnation < i.Incarnation:
		return muster.Beat{}, muster.Errorf(muster.CodeFenced, "incarnation %d is below %d", incarnation, i.Incarnation)
	}
	return m.beat(i.TTL), nil
}

func (m *memory) HeartbeatLease(ctx context.Context, id muster.LeaseID) (muster.Beat, error) {
	l, _, err := m.Lease(ctx, id)
	if err != nil {
		return muster.Beat{}, err
	}
	return m.beat(l.TTL), nil
}

func (m *memory) Heartbeats(ctx context.Context, h muster.Heartbeats) (muster.Beats, error) {
	b := muster.Beats{Unknown: []string{}, Next: muster.Duration(3 * time.Second)}
	count := func(name string, err error) error {
		switch muster.CodeOf(err) {
		case "":
			b.Renewed++
		case muster.CodeUnknownLease, muster.CodeUnknownInstance:
			b.Unknown = append(b.Unknown, name)
		case muster.CodeFenced:
			b.Fenced = append(b.Fenced, name)
		default:
			return err
		}
		return nil
	}
	for _, id := range h.Leases {
		_, err := m.HeartbeatLease(ctx, id)
		if err = count(id.String(), err); err != nil {
			return muster.Beats{}, err
		}
	}
	for _, i := range h.Instances {
		_, err := m.Heartbeat(ctx, i.Key(), i.Incarnation)
		if err = count(i.Key().String(), err); err != nil {
			return muster.Beats{}, err
		}
	}
	return b, nil
}

func (m *memory) GrantLease(ctx context.Context, _ muster.Caller, req muster.LeaseRequest) (*muster.Lease, uint64, error) {
	if err := m.begin(ctx); err != nil {
		return nil, 0, err
	}
	if err := req.Normalize(); err != nil {
		return nil, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index++
	l := &muster.Lease{ID: muster.MakeLeaseID(m.index, 0), Name: req.Name, TTL: req.TTL, Shared: true, Generation: m.index, Instances: []muster.InstanceKey{}}
	m.leases = append(m.leases, l)
	return l, m.index, nil
}

func (m *memory) Lease(ctx context.Context, id muster.LeaseID) (*muster.Lease, muster.ReadInfo, error) {
	if err := m.begin(ctx); err != nil {
		return nil, muster.ReadInfo{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info := muster.ReadInfo{Index: max(1, m.index)}
	for _, l := range m.leases {
		if l.ID == id {
			return l, info, nil
		}
	}
	return nil, info, muster.Errorf(muster.CodeUnknownLease, "there is no lease %s", id)
}

func (m *memory) RevokeLease(ctx context.Context, _ muster.Caller, id muster.LeaseID) (muster.Written, error) {
	if _, _, err := m.Lease(ctx, id); err != nil {
		return muster.Written{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index++
	m.leases = slices.DeleteFunc(m.leases, func(l *muster.Lease) bool { return l.ID == id })
	return muster.Written{Index: m.index, Changed: true}, nil
}
