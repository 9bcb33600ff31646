package node

import (
	"context"
	"log/slog"

	"github.com/muster-registry/muster/cluster"
	"github.com/muster-registry/muster/fsm"
)

// Recover makes the node of a data directory the only member of a new cluster with
// all the content it holds, for when the quorum of the old one is lost for good. The
// cluster gets another id, so that no lost member that comes back mixes its history
// in. peerAddr is the node's peer address; empty: the one it had.
func Recover(ctx context.Context, dataDir, peerAddr string, log *slog.Logger) (cluster.Recovered, error) {
	return cluster.Recover(ctx, cluster.Recovery{
		DataDir: dataDir, PeerAddr: peerAddr, Logger: log,
		FSM: func() (cluster.StateMachine, error) {
			state, err := fsm.New(fsm.Config{Logger: log})
			return fsm.Reborn{FSM: state}, err
		},
	})
}

// Repair sets the content of a data directory aside, so that its node joins anew.
func Repair(dataDir string) (aside string, err error) { return cluster.Repair(dataDir) }
