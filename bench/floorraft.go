package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// bareRaft is three nodes of hashicorp/raft on raft-boltdb over TCP, as their own
// documentation has them, with a state machine that forgets all: what consensus and
// three disks cost without a registry. All are in one process, and the load is given
// to the leader there, without HTTP: that is in its favour.
type bareRaft struct {
	dir    string
	leader *raft.Raft
	close  []func()
}

// nothing is its state machine.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (nothing) Release()                            {}

func startBareRaft() (*bareRaft, error) {
	dir, err := os.MkdirTemp("", "muster-bench-raft-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	b := &bareRaft{dir: dir}
	if err := b.start(); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

func (b *bareRaft) start() error {
	var starts []func() (*raft.Raft, error)
	var servers []raft.Server
	for n := range 3 {
		trans, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 2*time.Second, io.Discard)
		if err != nil {
			return fmt.Errorf("opening raft's port: %w", err)
		}
		b.close = append(b.close, func() { trans.CloseStreams(); trans.Close() })
		conf := raft.DefaultConfig()
		conf.LocalID = raft.ServerID(fmt.Sprint(n))
		conf.Logger = hclog.NewNullLogger()
		servers = append(servers, raft.Server{ID: conf.LocalID, Address: trans.LocalAddr()})
		starts = append(starts, func() (*raft.Raft, error) { return b.startNode(conf, trans, filepath.Join(b.dir, fmt.Sprint(n))) })
	}
	var nodes []*raft.Raft
	for _, start := range starts {
		r, err := start()
		if err != nil {
			return fmt.Errorf("starting a raft node: %w", err)
		}
		nodes = append(nodes, r)
	}
	if err := nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		return fmt.Errorf("founding the raft cluster: %w", err)
	}
	return until(context.Background(), "raft's leader", func() (bool, error) {
		for _, r := range nodes {
			if r.State() == raft.Leader {
				b.leader = r
			}
		}
		return b.leader != nil, nil
	})
}

func (b *bareRaft) startNode(conf *raft.Config, trans *raft.NetworkTransport, home string) (*raft.Raft, error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	store, err := raftboltdb.New(raftboltdb.Options{
		Path:        filepath.Join(home, "raft.db"),
		BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		return nil, err
	}
	b.close = append(b.close, func() { store.Close() })
	snaps, err := raft.NewFileSnapshotStore(home, 2, io.Discard)
	if err != nil {
		return nil, err
	}
	cache, err := raft.NewLogCache(1024, store)
	if err != nil {
		return nil, err
	}
	r, err := raft.NewRaft(conf, nothing{}, cache, store, snaps, trans)
	if err == nil {
		b.close = append(b.close, func() { _ = r.Shutdown().Error() })
	}
	return r, err
}

func (b *bareRaft) stop() {
	for n := len(b.close) - 1; n >= 0; n-- {
		b.close[n]()
	}
	_ = os.RemoveAll(b.dir) // in the temporary directory, which is swept
}

// raftOrder is a load on bare raft; a Sample is the answer.
type raftOrder struct {
	Clients  int           `json:"clients"`
	Duration time.Duration `json:"duration"`
	Bytes    int           `json:"bytes"`
}

func (b *bareRaft) serveRun(w http.ResponseWriter, r *http.Request) {
	var o raftOrder
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o.Clients < 1 || o.Bytes < 1 {
		http.Error(w, "that is no order", http.StatusBadRequest)
		return
	}
	payload := make([]byte, o.Bytes)
	s := Load{Clients: o.Clients, Do: func(context.Context, int, int) (int, error) {
		return 1, b.leader.Apply(payload, 10*time.Second).Error()
	}}.Measure(r.Context(), o.Duration)
	if s.First != nil {
		http.Error(w, s.First.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(s) // whoever has gone needs no answer
}

// measureRaft runs a load on the floor.
func measureRaft(ctx context.Context, client *http.Client, f *floor, o raftOrder) (Sample, Usage, error) {
	m := meter{client, []string{f.Control}}
	before, err := m.usage(ctx)
	if err != nil {
		return Sample{}, Usage{}, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return Sample{}, Usage{}, fmt.Errorf("encoding an order: %w", err)
	}
	patient := &http.Client{Transport: client.Transport} // it takes as long as it was told to
	answer, err := send(ctx, patient, "POST", f.Control+"/run", string(text), 200)
	if err != nil {
		return Sample{}, Usage{}, fmt.Errorf("measuring bare raft: %w", err)
	}
	var s Sample
	err = json.Unmarshal([]byte(answer), &s)
	after, usageErr := m.usage(ctx)
	after.CPU -= before.CPU
	return s, after, errors.Join(err, usageErr)
}
