package fsm

import (
	"slices"

	"github.com/muster-registry/muster"
)

// The most members, and removed members, that are remembered; the oldest is
// forgotten first.
const (
	maxMembers = 1024
	maxRemoved = 1024
)

type member struct {
	id   string
	boot uint64
}

// members is what the state knows of the cluster itself.
type members struct {
	boots   []member // in the order in which they were first seen
	removed []string // in the order of their removal
}

func (m *members) boot(id string) uint64 {
	for _, b := range m.boots {
		if b.id == id {
			return b.boot
		}
	}
	return 0
}

func (m *members) gone(id string) bool { return slices.Contains(m.removed, id) }

// seen remembers the highest boot counter of a member. The slices are copied
// before they are written: a snapshot may hold them.
func (m *members) seen(id string, boot uint64) bool {
	for n, b := range m.boots {
		if b.id != id {
			continue
		}
		if b.boot >= boot {
			return false
		}
		m.boots = slices.Clone(m.boots)
		m.boots[n].boot = boot
		return true
	}
	m.boots = append(slices.Clone(m.boots), member{id, boot})
	m.boots = m.boots[max(0, len(m.boots)-maxMembers):]
	return true
}

func (m *members) remove(id string) bool {
	m.boots = slices.DeleteFunc(slices.Clone(m.boots), func(b member) bool { return b.id == id })
	if m.gone(id) {
		return false
	}
	m.removed = append(slices.Clone(m.removed), id)
	m.removed = m.removed[max(0, len(m.removed)-maxRemoved):]
	return true
}

func (o *Member) apply(s *state, at step) result {
	r := result{index: at.index}
	switch {
	case o.ID == "":
		return reject(at, muster.Errorf(muster.CodeUnknownMember, "the member has no id"))
	case o.Removed:
		r.changed = s.members.remove(o.ID)
	case s.members.gone(o.ID):
		return reject(at, muster.Errorf(muster.CodeConflict, "member %s was removed", o.ID).
			WithHint("wipe its data directory, so that it joins as a new member"))
	default:
		r.changed = s.members.seen(o.ID, o.Boot)
	}
	return r
}

func (o *Epoch) apply(s *state, at step) result {
	if s.clusterID == "" {
		s.clusterID = o.ClusterID
	}
	// Whoever was feeding a restore spoke to another leader; if it lives, it
	// starts again.
	s.staging = nil
	return result{index: at.index, epoch: true, term: at.term}
}

// MemberBoot returns the highest boot counter seen of a member; 0 if none was.
func (f *FSM) MemberBoot(id string) uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.st.members.boot(id)
}

// MemberRemoved reports whether a member was removed from the cluster, for good.
func (f *FSM) MemberRemoved(id string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.st.members.gone(id)
}
