package cluster_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/muster-registry/muster/cluster"
)

const (
	benchOp   = 300 // bytes
	benchWays = 128 // concurrent writers
)

// BenchmarkPropose compares writing through the nodes of a cluster, from all three
// alike, with a bare raft on raft-boltdb written to at its leader, in one run.
func BenchmarkPropose(b *testing.B) {
	b.Run("raft", benchRaft)
	b.Run("muster", benchMuster)
}

// spread runs b.N writes over benchWays writers and reports how long they waited.
func spread(b *testing.B, write func(worker int) error) {
	b.Helper()
	var left, waited atomic.Int64
	left.Store(int64(b.N))
	errs := make(chan error, benchWays)
	b.ResetTimer()
	for w := range benchWays {
		go func() {
			for left.Add(-1) >= 0 {
				began := time.Now()
				if err := write(w); err != nil {
					errs <- err
					return
				}
				waited.Add(int64(time.Since(began)))
			}
			errs <- nil
		}()
	}
	for range benchWays {
		if err := <-errs; err != nil {
			b.Error(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64(waited.Load())/float64(b.N)/1e6, "ms/op")
}

func benchMuster(b *testing.B) {
	g := newGroup(b, 3, func(n *node) { n.cfg.Timing.Profile = cluster.ProfileDefault }).start()
	g.leader().write("first")
	op := append([]byte{opWrite}, make([]byte, benchOp)...)
	spread(b, func(worker int) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return g.nodes[worker%3].Propose(ctx, [][]byte{op})[0].Err
	})
}

// BenchmarkReadIndex reads from a follower: many readers share a call.
func BenchmarkReadIndex(b *testing.B) {
	g := newGroup(b, 3, func(n *node) { n.cfg.Timing.Profile = cluster.ProfileDefault }).start()
	n := g.follower()
	n.write("first")
	spread(b, func(int) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return n.ReadIndex(ctx)
	})
}

// BenchmarkFailover kills the leader and waits for the next write, once per turn.
func BenchmarkFailover(b *testing.B) {
	for _, p := range []cluster.Profile{cluster.ProfileFast, cluster.ProfileDefault} {
		b.Run(string(p), func(b *testing.B) {
			g := newGroup(b, 3, func(n *node) { n.cfg.Timing.Profile = p }).start()
			var worst, sum time.Duration
			for b.Loop() {
				leader := g.leader()
				leader.write("before")
				n := g.others(leader)[0]
				began := time.Now()
				leader.kill()
				n.write("after")
				sum, worst = sum+time.Since(began), max(worst, time.Since(began))
				leader.start()
			}
			b.ReportMetric(float64(sum.Milliseconds())/float64(b.N), "ms/failover")
			b.ReportMetric(float64(worst.Milliseconds()), "ms-worst")
		})
	}
}

func benchRaft(b *testing.B) {
	var servers []raft.Server
	var nodes []*raft.Raft
	for i := range 3 {
		store, err := boltdb.New(boltdb.Options{Path: filepath.Join(b.TempDir(), "raft.db")})
		if err != nil {
			b.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		trans := raft.NewNetworkTransport(&streamLayer{l}, 3, time.Second, io.Discard)
		c := raft.DefaultConfig()
		c.LocalID, c.LogOutput = raft.ServerID(fmt.Sprint(i)), io.Discard
		r, err := raft.NewRaft(c, newMachine(), store, store, raft.NewInmemSnapshotStore(), trans)
		if err != nil {
			b.Fatal(err)
		}
		nodes = append(nodes, r)
		servers = append(servers, raft.Server{ID: c.LocalID, Address: trans.LocalAddr()})
		b.Cleanup(func() { r.Shutdown().Error(); store.Close() })
	}
	if err := nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		b.Fatal(err)
	}
	var leader *raft.Raft
	eventually(b, "a leader", func() bool {
		for _, r := range nodes {
			if r.State() == raft.Leader {
				leader = r
			}
		}
		return leader != nil
	})
	entry := newMachine().Pack([][]byte{append([]byte{opWrite}, make([]byte, benchOp)...)}, time.Now())
	spread(b, func(int) error { return leader.Apply(entry, 0).Error() })
}

type streamLayer struct{ net.Listener }

func (s *streamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(addr), timeout)
}
