package fsm

import "github.com/hashicorp/raft"

// Reborn is a state that is rebuilt offline, for a new cluster: its snapshots have no
// cluster id, which the next leader gives anew, and no members. It is never one that
// follows a log.
type Reborn struct{ *FSM }

// Snapshot implements raft.FSM.
func (r Reborn) Snapshot() (raft.FSMSnapshot, error) {
	r.mu.Lock()
	r.st.clusterID, r.st.members = "", members{}
	r.mu.Unlock()
	return r.FSM.Snapshot()
}
