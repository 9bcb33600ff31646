package muster

import "time"

// MemberState is the part a member plays in the cluster.
type MemberState string

// The states of a member.
const (
	MemberLeader   MemberState = "leader"
	MemberFollower MemberState = "follower"
	// MemberLearner receives the log and has no vote (yet).
	MemberLearner MemberState = "learner"
)

// Member is a node of the cluster, as the answering node sees it.
type Member struct {
	ID    string      `json:"id"`
	Name  string      `json:"name"`
	State MemberState `json:"state"`
	// Alive is the gossip's opinion.
	Alive    bool   `json:"alive"`
	APIAddr  string `json:"api_addr"`
	PeerAddr string `json:"peer_addr"`
	Zone     string `json:"zone"`
	Version  string `json:"version"`
	// FeatureLevel is the highest that the member's version knows; 0 if unknown.
	FeatureLevel uint64 `json:"feature_level"`
	// AppliedIndex is the index the member last said it had applied, and LagMS
	// how many milliseconds ago it was last known to be current; -1 if unknown.
	AppliedIndex uint64 `json:"applied_index"`
	LagMS        int64  `json:"lag_ms"`
}

// Cluster is what GET /v1/cluster shows.
type Cluster struct {
	ClusterID string `json:"cluster_id"`
	// Leader is the id of the leader the answering node knows; empty if none.
	Leader      string `json:"leader"`
	Term        uint64 `json:"term"`
	CommitIndex uint64 `json:"commit_index"`
	Insecure    bool   `json:"insecure"`
	// FeatureLevel is what the cluster writes: it rises by itself once every member
	// knows the higher one, and never falls.
	FeatureLevel uint64   `json:"feature_level"`
	Members      []Member `json:"members"`
	Governor     Governor `json:"governor"`
}

// Governor is the expiry governor, which holds instances in a mass loss instead of
// removing them, as GET /v1/cluster shows it.
type Governor struct {
	// Enabled is the switch of the whole cluster; a service's own is
	// Settings.Protect.
	Enabled bool `json:"enabled"`
	// Active says that instances are held right now, Suspects how many.
	Active   bool `json:"active"`
	Suspects int  `json:"suspects"`
	// Since, Actor and Reason are of the last switch; empty if there was none.
	Since  time.Time `json:"since,omitzero"`
	Actor  string    `json:"actor,omitempty"`
	Reason string    `json:"reason,omitempty"`
}
