package clustertest_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/client/grpcresolver"
	"github.com/muster-registry/muster/client/grpcserver"
	"github.com/muster-registry/muster/clustertest"
)

// grpcBackend is a gRPC server that keeps itself registered, and is probed.
type grpcBackend struct {
	grpc    *grpc.Server
	server  *grpcserver.Server
	session *client.Session
	addr    string
	stop    context.CancelFunc
	done    chan error // what Serve returned
}

func startGRPC(t *testing.T, c *clustertest.Cluster, id string) *grpcBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	b := &grpcBackend{grpc: grpc.NewServer(grpcserver.Options()...), addr: l.Addr().String(), stop: stop, done: make(chan error, 1)}
	if b.server, err = grpcserver.New(b.grpc, grpcserver.Config{}); err != nil {
		t.Fatal(err)
	}
	b.session, err = newSDK(t, c).Register(ctx, muster.Instance{
		Service: "users", ID: id, Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, TTL: muster.TTL(3 * time.Second),
		Checks: []muster.Check{{Type: muster.CheckGRPC, Interval: muster.Duration(time.Second)}},
	}, client.Drain(250*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	go func() { b.done <- b.server.Serve(l, b.session) }()
	t.Cleanup(func() { b.kill(); b.stop(); <-b.session.Done() })
	sdk := newSDK(t, c)
	c.Wait(id+" to be routable", func() bool {
		i, err := sdk.Instance(t.Context(), "users", id)
		return err == nil && i.Routable && i.Port == l.Addr().(*net.TCPAddr).Port
	})
	return b
}

// leave ends it as a deployment does, kill in the middle of what it does.
func (b *grpcBackend) leave(t *testing.T) {
	t.Helper()
	b.stop()
	if err := <-b.done; err != nil {
		t.Errorf("a server that was told to end: %v", err)
	}
}

func (b *grpcBackend) kill() { b.grpc.Stop() }

// TestGRPCHealth: the registry's own checks pass, and a caller who checks health by
// himself leaves out a server that says it is not well, while all others still list
// it, and takes it again.
func TestGRPCHealth(t *testing.T) {
	c := clustertest.Start(t, 3)
	fleet := []*grpcBackend{startGRPC(t, c, "users-0"), startGRPC(t, c, "users-1")}
	conn, err := grpc.NewClient("muster:///users", append(grpcresolver.DialOptions(newSDK(t, c)),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+grpcresolver.Policy+`":{}}],"healthCheckConfig":{"serviceName":"part"}}`))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, b := range fleet {
		b.server.SetServing("part", true)
	}
	// asked is who answered of 20 calls in a row.
	asked := func() map[string]bool {
		who := map[string]bool{}
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
			var p peer.Peer
			_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&p), grpc.WaitForReady(true))
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			who[p.Addr.String()] = true
		}
		return who
	}
	c.Wait("both to be called", func() bool { return len(asked()) == 2 })
	fleet[0].server.SetServing("part", false)
	c.Wait("the other one only to be called", func() bool { return !asked()[fleet[0].addr] })
	if i, err := newSDK(t, c).Instance(t.Context(), "users", "users-0"); err != nil || !i.Routable {
		t.Errorf("the registry checks the whole server, and says %+v %v", i, err)
	}
	fleet[0].server.SetServing("part", true)
	c.Wait("both to be called again", func() bool { return len(asked()) == 2 })
	// The stream of a caller's health check must not hold up the end.
	began := time.Now()
	fleet[0].leave(t)
	if took := time.Since(began); took > grpcserver.DefaultStopTimeout {
		t.Errorf("the end took %s", took)
	}
}

// TestGRPCThroughRollingRestartsAndCrashes: calls to muster:///users, repeated by gRPC
// where that is safe, go on through rolling restarts, the crash of a server and that of
// the registry's leader, and none fails.
func TestGRPCThroughRollingRestartsAndCrashes(t *testing.T) {
	c := clustertest.Start(t, 3)
	var fleet [3]*grpcBackend
	for n := range fleet {
		fleet[n] = startGRPC(t, c, fmt.Sprintf("users-%d", n))
	}
	conn, err := grpc.NewClient("muster:///users?namespace=default", append(grpcresolver.DialOptions(newSDK(t, c)),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+grpcresolver.Policy+`":{}}],"healthCheckConfig":{"serviceName":""},"methodConfig":[{"name":[{}],"retryPolicy":{
			"maxAttempts":5,"initialBackoff":"0.02s","maxBackoff":"0.2s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}]}`))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	users := grpc_health_v1.NewHealthClient(conn)
	calls := startCalling(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
		defer cancel()
		_, err := users.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err
	}, 3)
	more := func(n int64) {
		t.Helper()
		before := calls.ok.Load()
		c.Wait("calls to go on", func() bool { return calls.ok.Load() > before+n })
	}
	more(100)
	for range *rollingRounds {
		for n := range fleet {
			fleet[n].leave(t)
			fleet[n] = startGRPC(t, c, fmt.Sprintf("users-%d", n))
		}
	}
	more(100)
	fleet[0].kill()
	leader := c.Leader()
	leader.Kill()
	more(500)
	leader.Start()
	more(500)
	calls.end(t)
}
