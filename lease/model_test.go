package lease_test

import "testing"

// The model: one renewal of a leader of term 1 and one election of term 2 among
// three voters, in every interleaving, with messages delayed at will and voters
// that restart. Its steps are those of handleRenew, (*session).round, handleGather
// and gathering: a receiver merges and checks its term in two steps; a voter
// checks its term and copies in two steps; raft raises the term of a majority
// before the new leader gathers; the client is answered when two voters have
// acknowledged; the new leader expires the lease when two tables that count lack
// the renewal. A restart empties the shadow and loses what was under way at that
// voter, not its term nor its vote, and leaves a young table: its coming of age
// needs a TTL, after which the renewal does not matter any more.

// variant says which rule is broken on purpose.
type variant struct {
	name         string
	checkMerge   bool // the receiver checks, then merges
	copyCheck    bool // the voter copies, then checks
	countYoung   bool // young tables count
	restarts     uint8
	wantUnsafe   bool
	leaderChecks bool // the leader reads its term before its own merge
}

const voters = 3

// step of a message or request at a voter.
const (
	idle = iota
	halfway
	done
	failed
)

type world struct {
	term     [voters]uint8
	merged   [voters]bool
	young    [voters]bool
	renew    [voters]uint8 // the renewal at each voter, the leader's own steps included
	gather   [voters]uint8
	copied   [voters]bool // what the copy under way, or given, holds
	oldTable [voters]bool // the table counted when it was given
	votes    [voters]bool
	leading  bool // the leader of term 1 has not restarted
	electing bool // the candidate of term 2 has not restarted
	elected  bool
	acked    bool // the client was told "renewed"
	restarts uint8
}

const oldLeader = 0

func (v variant) next(w world, candidate int, visit func(world)) {
	for i := range voters {
		v.renewStep(w, i, visit)
		v.electionStep(w, i, candidate, visit)
		v.gatherStep(w, i, visit)
		if w.restarts < v.restarts {
			visit(restart(w, i, candidate))
		}
	}
	acks := 0
	for i := range voters {
		if w.renew[i] == done {
			acks++
		}
	}
	if w.leading && !w.acked && acks >= 2 {
		w.acked = true
		visit(w)
	}
}

// renewStep takes the next of the receiver's two steps at voter i.
func (v variant) renewStep(w world, i int, visit func(world)) {
	checkFirst := v.checkMerge
	if i == oldLeader {
		checkFirst = v.leaderChecks
		if !w.leading {
			return
		}
	}
	switch {
	case w.renew[i] != idle && w.renew[i] != halfway:
	case (w.renew[i] == idle) == checkFirst: // this step is the check
		if w.term[i] > 1 {
			w.renew[i] = failed
		} else {
			w.renew[i]++
		}
		visit(w)
	default:
		w.merged[i] = true
		w.renew[i]++
		visit(w)
	}
}

func (v variant) electionStep(w world, i, candidate int, visit func(world)) {
	if !w.electing {
		return
	}
	if w.elected {
		if w.term[i] < 2 { // by an entry of the new leader's
			w.term[i] = 2
			visit(w)
		}
		return
	}
	if !w.votes[i] && (i == candidate || w.votes[candidate]) && w.term[i] < 2 {
		n := w
		n.term[i], n.votes[i] = 2, true
		visit(n)
	}
	n := 0
	for _, vote := range w.votes {
		if vote {
			n++
		}
	}
	if n >= 2 {
		w.elected = true
		visit(w)
	}
}

// gatherStep takes the next of the voter's two steps of answering the new leader.
func (v variant) gatherStep(w world, i int, visit func(world)) {
	if !w.electing || !w.elected {
		return
	}
	switch {
	case w.gather[i] != idle && w.gather[i] != halfway:
	case (w.gather[i] == idle) == v.copyCheck: // this step is the copy
		w.copied[i] = w.merged[i]
		w.oldTable[i] = !w.young[i] || v.countYoung
		w.gather[i]++
		visit(w)
	case w.term[i] < 2: // asked again later
		if w.gather[i] == halfway {
			w.gather[i] = idle
			visit(w)
		}
	default:
		w.gather[i]++
		visit(w)
	}
}

func restart(w world, i, candidate int) world {
	w.restarts++
	w.merged[i], w.young[i] = false, true
	if w.renew[i] == halfway {
		w.renew[i] = failed // the connection broke
	}
	if w.gather[i] == halfway {
		w.gather[i] = idle
	}
	if i == oldLeader {
		w.leading = false
	}
	if i == candidate {
		w.electing = false
	}
	return w
}

// early reports whether the new leader may expire a lease whose client was told
// that it was renewed.
func (w world) early() bool {
	lack := 0
	for i := range voters {
		if w.gather[i] == done && w.oldTable[i] && !w.copied[i] {
			lack++
		}
	}
	return w.acked && lack >= 2
}

// check explores every interleaving and returns the number of states and whether
// any of them expires early.
func (v variant) check() (states int, unsafe bool) {
	for candidate := range voters {
		first := world{term: [voters]uint8{1, 1, 1}, leading: true, electing: true}
		seen := map[world]bool{first: true}
		for stack := []world{first}; len(stack) > 0; {
			w := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			unsafe = unsafe || w.early()
			v.next(w, candidate, func(n world) {
				if !seen[n] {
					seen[n] = true
					stack = append(stack, n)
				}
			})
		}
		states += len(seen)
	}
	return states, unsafe
}

func TestModel(t *testing.T) {
	for _, v := range []variant{
		{name: "as designed"},
		{name: "as designed, one restart", restarts: 1},
		{name: "as designed, two restarts", restarts: 2},
		{name: "receiver checks before it merges", checkMerge: true, wantUnsafe: true},
		{name: "leader checks before it merges", leaderChecks: true, wantUnsafe: true},
		{name: "voter copies before it checks", copyCheck: true, wantUnsafe: true},
		{name: "young tables count", countYoung: true, restarts: 1, wantUnsafe: true},
	} {
		t.Run(v.name, func(t *testing.T) {
			states, unsafe := v.check()
			t.Logf("%d states", states)
			if unsafe != v.wantUnsafe {
				t.Errorf("early expiry possible: got %v, want %v", unsafe, v.wantUnsafe)
			}
			if states < 1000 {
				t.Errorf("only %d states: the model is broken", states)
			}
		})
	}
}
