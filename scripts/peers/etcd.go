package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	etcd "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/muster-registry/muster/bench"
)

// etcdSystem is etcd by its own client, over gRPC: an instance is a key with a lease,
// a service a prefix.
type etcdSystem struct {
	nodes   trio
	urls    []string
	clients [3][]*etcd.Client // by node

	mu     sync.Mutex
	shared map[int]etcd.LeaseID                  // by client; guarded by mu
	leases map[int]etcd.LeaseID                  // by instance; guarded by mu
	beats  map[int]pb.Lease_LeaseKeepAliveClient // by client; guarded by mu
}

// connections is how many a node has from us: etcd's own benchmark takes several.
const connections = 3

func (e *etcdSystem) name() string { return "etcd" }

func (e *etcdSystem) version() string {
	out, err := exec.Command("etcd", "--version").Output()
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(first, "etcd Version: ")
}

func (e *etcdSystem) missing() string {
	if _, err := exec.LookPath("etcd"); err != nil {
		return "apt-get install etcd-server"
	}
	return ""
}

func (e *etcdSystem) start(ctx context.Context, dir string) error {
	e.shared, e.leases, e.beats = map[int]etcd.LeaseID{}, map[int]etcd.LeaseID{}, map[int]pb.Lease_LeaseKeepAliveClient{}
	ports, err := bench.FreePorts(6)
	if err != nil {
		return err
	}
	var members []string
	for n := range 3 {
		members = append(members, fmt.Sprintf("n%d=http://%s", n, ports[n]))
		e.urls = append(e.urls, "http://"+ports[3+n])
	}
	for n := range 3 {
		name, peer := fmt.Sprintf("n%d", n), "http://"+ports[n]
		p := &proc{path: "etcd", log: filepath.Join(dir, name+".log"), args: []string{
			"--name", name, "--data-dir", filepath.Join(dir, name), "--logger", "zap", "--log-level", "error",
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--listen-client-urls", e.urls[n], "--advertise-client-urls", e.urls[n],
			"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new",
		}}
		e.nodes = append(e.nodes, p)
		if err := p.start(); err != nil {
			return err
		}
	}
	for n := range 3 {
		for range connections {
			c, err := etcd.New(etcd.Config{Endpoints: e.urls[n : n+1], DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
			if err != nil {
				return err
			}
			e.clients[n] = append(e.clients[n], c)
		}
	}
	_, err = e.leader(ctx)
	return err
}

func (e *etcdSystem) stop() {
	for _, some := range e.clients {
		for _, c := range some {
			_ = c.Close() // its process goes too
		}
	}
	e.nodes.stop()
}

// at is the connection of a client, to one of the nodes.
func (e *etcdSystem) at(client int) *etcd.Client {
	return e.clients[client%3][client/3%connections]
}

func key(service string, n int) string {
	return fmt.Sprintf("/services/%s/i-%d", service, n)
}

// leasedValue is as long as what Muster is given.
var leasedValue = instance(`"ttl":"1h"`)

func (e *etcdSystem) register(ctx context.Context, client, n int) error {
	lease, err := e.at(client).Grant(ctx, 3600)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.leases[n] = lease.ID
	e.mu.Unlock()
	_, err = e.at(client).Put(ctx, key(fmt.Sprintf("own-%d", n/100), n), leasedValue, etcd.WithLease(lease.ID))
	return err
}

func (e *etcdSystem) registerShared(ctx context.Context, client, n int) error {
	e.mu.Lock()
	id := e.shared[client]
	e.mu.Unlock()
	if id == 0 {
		lease, err := e.at(client).Grant(ctx, 3600)
		if err != nil {
			return err
		}
		id = lease.ID
		e.mu.Lock()
		e.shared[client] = id
		e.mu.Unlock()
	}
	_, err := e.at(client).Put(ctx, key(fmt.Sprintf("shared-%d", n/100), n), leasedValue, etcd.WithLease(id))
	return err
}

// keepalive sends on a stream that stays open and waits for the answer: the client's
// KeepAliveOnce would open one for each.
func (e *etcdSystem) keepalive(ctx context.Context, client, n int) error {
	e.mu.Lock()
	stream, id := e.beats[client], e.leases[n]
	e.mu.Unlock()
	if stream == nil {
		var err error
		if stream, err = pb.NewLeaseClient(e.at(client).ActiveConnection()).LeaseKeepAlive(ctx); err != nil {
			return err
		}
		e.mu.Lock()
		e.beats[client] = stream
		e.mu.Unlock()
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err == nil && answer.TTL <= 0 {
		err = errors.New("the lease is gone")
	}
	return err
}

func (e *etcdSystem) fill(ctx context.Context) error {
	for n := range 100 {
		if _, err := e.at(0).Put(ctx, key("filled", n), leasedValue); err != nil {
			return err
		}
	}
	return nil
}

func (e *etcdSystem) read(ctx context.Context, client int, linearizable bool) error {
	options := []etcd.OpOption{etcd.WithPrefix()}
	if !linearizable {
		options = append(options, etcd.WithSerializable())
	}
	got, err := e.at(client).Get(ctx, "/services/filled/", options...)
	if err == nil && len(got.Kvs) != 100 {
		err = fmt.Errorf("read %d of 100", len(got.Kvs))
	}
	return err
}

func (e *etcdSystem) watch(ctx context.Context, node int, told func()) (func(), error) {
	ctx, cancel := context.WithCancel(etcd.WithRequireLeader(ctx))
	changes := e.clients[node][0].Watch(ctx, "/services/watched/", etcd.WithPrefix(), etcd.WithCreatedNotify())
	if first := <-changes; !first.Created {
		cancel()
		return nil, fmt.Errorf("the watch was not made: %w", first.Err())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range changes {
			told()
		}
	}()
	return func() { cancel(); <-ended }, nil
}

func (e *etcdSystem) change(ctx context.Context, node, n int) error {
	_, err := e.clients[node][0].Put(ctx, key("watched", 0), fmt.Sprintf("%s %d", leasedValue, n))
	return err
}

func (e *etcdSystem) write(ctx context.Context, node, n int) error {
	_, err := e.clients[node][n%connections].Put(ctx, key("written", n%100), leasedValue)
	return err
}

// leader also waits until every node answers and knows it.
func (e *etcdSystem) leader(ctx context.Context) (int, error) {
	found := 0
	err := until(ctx, "etcd's leader", func() bool {
		known := 0
		for n := range 3 {
			ask, cancel := context.WithTimeout(ctx, time.Second)
			s, err := e.clients[n][0].Status(ask, e.urls[n])
			cancel()
			if err != nil || s.Leader == 0 {
				return false
			}
			if known++; s.Leader == s.Header.MemberId {
				found = n
			}
		}
		return known == 3
	})
	return found, err
}

func (e *etcdSystem) kill(node int) time.Time { return e.nodes[node].kill() }

func (e *etcdSystem) restart(ctx context.Context, node int) error {
	if err := e.nodes[node].start(); err != nil {
		return err
	}
	_, err := e.leader(ctx)
	return err
}

func (e *etcdSystem) pids() []int { return e.nodes.pids() }
