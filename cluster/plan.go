package cluster

import (
	"time"

	"github.com/muster-registry/muster/fault"
)

const (
	// deadAfter is how long a member must have been gone, for gossip and for the
	// leader's own questions, before it may be removed.
	deadAfter = 10 * time.Minute
	// maxPromotionLag is how many entries a learner may lack when it gets its vote.
	maxPromotionLag = 1000
	// fewestVoters is what automatic removal leaves at least.
	fewestVoters = 3
)

// memberView is a member of the configuration as the leader sees it just now.
type memberView struct {
	id, addr string
	voter    bool
	live     bool          // has answered the leader itself lately, under its id
	okFor    time.Duration // how long it has answered without a gap
	deadFor  time.Duration // how long neither gossip nor the leader has found it
	sameTerm bool
	lag      uint64 // entries it has not applied
	wanted   bool   // wants a vote
	leaving  bool
	removed  bool   // it was decided for ever
	movedTo  string // another address at which it has answered
	usurper  string // the id of another node that answers at its address
}

// newcomer is a node that is no member and has answered the leader under its id.
type newcomer struct {
	id, addr string
	wanted   bool
	leaving  bool
	removed  bool
	foreign  bool // of another cluster, or about to found one
}

// clusterView is all that the next change of membership depends on.
type clusterView struct {
	self      string
	expect    int // the largest --bootstrap-expect among the nodes
	stabilise time.Duration
	members   []memberView
	newcomers []newcomer
}

type changeKind string

const (
	changeNone    changeKind = ""
	changeAdd     changeKind = "add as learner"
	changePromote changeKind = "give a vote"
	changeMove    changeKind = "change address"
	changeRemove  changeKind = "remove"
	changeHandOff changeKind = "hand leadership over"
)

// change is one change of membership.
type change struct {
	kind     changeKind
	id, addr string
	voter    bool
	reason   string
}

// next is the one change to make now. What is decided already comes first, then
// what the operator asked for, then what mends, then what grows; what only tidies
// comes last.
func (v *clusterView) next() change {
	for _, step := range []func() change{v.finish, v.leave, v.move, v.replace, v.promote, v.add, v.bury} {
		if c := step(); c.kind != changeNone {
			return c
		}
	}
	return change{}
}

func (v *clusterView) voters() (all, live int) {
	for _, m := range v.members {
		if m.voter {
			all++
			if m.live {
				live++
			}
		}
	}
	return all, live
}

// safeWithout reports whether the live voters are a majority once m is gone.
func (v *clusterView) safeWithout(m *memberView) bool {
	all, live := v.voters()
	if m.voter {
		all--
		if m.live {
			live--
		}
	}
	return all > 0 && live >= all/2+1
}

func (v *clusterView) remove(m *memberView, reason string) change {
	return change{kind: changeRemove, id: m.id, addr: m.addr, voter: m.voter, reason: reason}
}

// finish removes members whose removal was recorded and then cut short.
func (v *clusterView) finish() change {
	for i := range v.members {
		if m := &v.members[i]; m.removed && m.id != v.self && v.safeWithout(m) {
			return v.remove(m, "its removal was decided")
		}
	}
	return change{}
}

func (v *clusterView) leave() change {
	for i := range v.members {
		m := &v.members[i]
		switch {
		case !m.leaving || !v.safeWithout(m):
		case m.id == v.self:
			return change{kind: changeHandOff, id: m.id, reason: "the leader is leaving"}
		default:
			return v.remove(m, "it is leaving")
		}
	}
	return change{}
}

func (v *clusterView) move() change {
	for _, m := range v.members {
		if m.movedTo != "" && v.at(m.movedTo) == nil {
			return change{kind: changeMove, id: m.id, addr: m.movedTo, voter: m.voter, reason: "it answers at another address"}
		}
	}
	return change{}
}

func (v *clusterView) at(addr string) *memberView {
	for i := range v.members {
		if v.members[i].addr == addr {
			return &v.members[i]
		}
	}
	return nil
}

// replace removes a member at whose address another node answers: its data
// directory is gone, and with it whatever it promised. No tolerance is lost, it was
// not there any more; so this also goes below fewestVoters.
func (v *clusterView) replace() change {
	for i := range v.members {
		m := &v.members[i]
		if m.usurper != "" && !m.live && m.movedTo == "" && m.id != v.self && v.safeWithout(m) {
			return v.remove(m, "node "+m.usurper+" has taken its address")
		}
	}
	return change{}
}

// wantedVoters is how many voters there should be: as many live nodes as want a
// vote, but an odd number, because an even one tolerates no more failures than one
// fewer and needs more answers. The node that is left over stays a learner, ready
// to take the place of a voter that fails.
func (v *clusterView) wantedVoters() int {
	n := 0
	for _, m := range v.members {
		if m.live && m.wanted && !m.leaving {
			n++
		}
	}
	if n%2 == 0 {
		n--
	}
	return max(n, v.expect)
}

func (v *clusterView) promote() change {
	_, live := v.voters()
	if live >= v.wantedVoters() {
		return change{}
	}
	for _, m := range v.members {
		if !m.voter && m.live && m.wanted && !m.leaving && !m.removed && m.usurper == "" &&
			(m.sameTerm && m.lag < maxPromotionLag && m.okFor >= v.stabilise || fault.Is(fault.VoteTooSoon)) {
			return change{kind: changePromote, id: m.id, addr: m.addr, voter: true, reason: "it has caught up and is steady"}
		}
	}
	return change{}
}

func (v *clusterView) add() change {
	for _, c := range v.newcomers {
		if !c.removed && !c.foreign && !c.leaving && v.at(c.addr) == nil {
			return change{kind: changeAdd, id: c.id, addr: c.addr, reason: "it asks to join"}
		}
	}
	return change{}
}

// bury removes members that are long dead: learners always, voters only down to
// fewestVoters and only while a majority lives with and without them.
func (v *clusterView) bury() change {
	all, live := v.voters()
	for i := range v.members {
		m := &v.members[i]
		if m.id == v.self || m.live || m.deadFor < deadAfter {
			continue
		}
		if !m.voter || (all-1 >= max(fewestVoters, v.expect) && live >= all/2+1 && v.safeWithout(m)) {
			return v.remove(m, "it has been dead for "+m.deadFor.Round(time.Second).String())
		}
	}
	return change{}
}
