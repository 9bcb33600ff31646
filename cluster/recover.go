package cluster

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/muster-registry/muster/durable"
)

// Recovery is what Recover needs.
type Recovery struct {
	// DataDir is that of the node that is to go on alone. No process may use it.
	DataDir string
	// PeerAddr is the node's peer address; empty: the one it had.
	PeerAddr string
	// FSM makes an empty state machine. What it writes as a snapshot, once it has
	// been given all there is, is what the cluster begins with.
	FSM    func() (StateMachine, error)
	Logger *slog.Logger
}

// Recovered says what became of a cluster.
type Recovered struct {
	ID       string   // of the node that goes on
	PeerAddr string   // of the same
	Index    uint64   // raft's, of the last entry it held
	Lost     []string // ids of the members that are none any more
}

// Recover makes a member the only one of its cluster, from all it holds, for when
// the others are lost for good and with them the quorum. Entries that the lost ones
// had and it had not are gone; entries that were on their way count as written.
// It works on the files of a node that does not run.
func Recover(ctx context.Context, r Recovery) (Recovered, error) {
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat(filepath.Join(r.DataDir, identityFile)); err != nil {
		return Recovered{}, exitErrorf(exitConfig, "%s is not the data directory of a node: %w", r.DataDir, err)
	}
	n := &Node{logger: r.Logger, startup: startup{logger: r.Logger}, timing: (&Config{Timing: Timing{Profile: ProfileDefault}}).timing(&Faults{}), failed: make(chan struct{})}
	machine, err := r.FSM() // only asked what it knows
	if err != nil {
		return Recovered{}, err
	}
	if n.dir, err = openDataDir(r.DataDir, machine.KnownLevel()); err != nil {
		return Recovered{}, err
	}
	n.id = n.dir.identity().ID
	err = n.openStores(Deps{Faults: &Faults{}})
	var done Recovered
	if err == nil {
		done, err = n.recover(ctx, r)
	}
	if n.store != nil {
		err = errors.Join(err, n.store.Close())
	}
	return done, errors.Join(err, n.dir.close())
}

func (n *Node) recover(ctx context.Context, r Recovery) (Recovered, error) {
	if !n.hadState {
		return Recovered{}, exitErrorf(exitConfig, "%s holds no state: there is nothing to recover", r.DataDir)
	}
	if err := n.verify(ctx); err != nil {
		return Recovered{}, err
	}
	done, err := n.lastMembers(r)
	if err != nil {
		return Recovered{}, err
	}
	machine, err := r.FSM()
	if err != nil {
		return Recovered{}, err
	}
	if done.Index, err = n.store.LastIndex(); err != nil {
		return Recovered{}, exitErrorf(exitIO, "reading the log: %w", err)
	}
	alone := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(n.id), Address: raft.ServerAddress(done.PeerAddr), Suffrage: raft.Voter}}}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(done.PeerAddr))
	defer transport.Close()
	if err := raft.RecoverCluster(raftConfig(n.id, n.timing, n.logger), machine, n.store, n.store, n.snaps, transport, alone); err != nil {
		return Recovered{}, exitErrorf(exitCorrupt, "rebuilding the cluster: %w", err)
	}
	// It is another cluster from now on: what the lost members still hold is not its
	// history, should they come back.
	return done, n.dir.setClusterID("")
}

// lastMembers reads who was in the cluster.
func (n *Node) lastMembers(r Recovery) (Recovered, error) {
	done := Recovered{ID: n.id, PeerAddr: r.PeerAddr}
	machine, err := r.FSM() // is consumed
	if err != nil {
		return done, err
	}
	_, transport := raft.NewInmemTransport("offline")
	defer transport.Close()
	members, err := raft.GetConfiguration(raftConfig(n.id, n.timing, n.logger), machine, n.store, n.store, n.snaps, transport)
	if err != nil {
		return done, exitErrorf(exitCorrupt, "reading who was in the cluster: %w", err)
	}
	for _, s := range members.Servers {
		switch {
		case string(s.ID) != n.id:
			done.Lost = append(done.Lost, string(s.ID))
		case done.PeerAddr == "":
			done.PeerAddr = string(s.Address)
		}
	}
	if done.PeerAddr == "" {
		return done, exitErrorf(exitConfig, "the node was no member of its cluster: say its peer address with --peer-addr")
	}
	return done, nil
}

// Repair sets the content of a data directory aside, so that the node that is
// started on it joins as a new member. It returns the folder that holds the old
// content. No process may use the directory.
func Repair(dataDir string) (aside string, err error) {
	lock, err := os.OpenFile(filepath.Join(dataDir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return "", exitErrorf(exitConfig, "%s is not the data directory of a node: %w", dataDir, err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", exitErrorf(exitConfig, "the data directory %s is in use: stop the node first", dataDir)
	}
	aside = filepath.Join(dataDir, "discarded-"+time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.Mkdir(aside, 0o700); err != nil {
		return "", exitErrorf(exitIO, "setting the old content aside: %w", err)
	}
	// The identity goes first: without it a half-done repair is refused at the start,
	// and not taken for a node that forgot.
	for _, name := range []string{identityFile, logFile, snapshotsDir, versionFile} {
		err := os.Rename(filepath.Join(dataDir, name), filepath.Join(aside, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", exitErrorf(exitIO, "setting %s aside: %w", name, err)
		}
	}
	if err := durable.SyncDir(dataDir); err != nil {
		return "", exitErrorf(exitIO, "setting the old content aside: %w", err)
	}
	return aside, nil
}
