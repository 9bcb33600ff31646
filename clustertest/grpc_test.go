package clustertest_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/client/grpcresolver"
	"github.com/muster-registry/muster/clustertest"
)

// grpcBackend is a gRPC server that keeps itself registered.
type grpcBackend struct {
	server  *grpc.Server
	session *client.Session
	stop    context.CancelFunc
	done    chan struct{}
}

func startGRPC(t *testing.T, c *clustertest.Cluster, id string) *grpcBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	b := &grpcBackend{server: grpc.NewServer(), stop: stop, done: make(chan struct{})}
	grpc_health_v1.RegisterHealthServer(b.server, health.NewServer())
	go func() {
		defer close(b.done)
		_ = b.server.Serve(l) // ends with Stop
	}()
	t.Cleanup(b.kill)
	b.session, err = newSDK(t, c).Register(ctx, muster.Instance{
		Service: "users", ID: id, Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, TTL: muster.TTL(3 * time.Second),
	}, client.Drain(250*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	wait, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()
	if err := b.session.Await(wait); err != nil {
		t.Fatalf("registering %s: %v", id, err)
	}
	return b
}

// leave ends it as a deployment does, kill in the middle of what it does.
func (b *grpcBackend) leave() {
	b.stop()
	<-b.session.Done()
	b.server.GracefulStop()
	<-b.done
}

func (b *grpcBackend) kill() {
	b.server.Stop()
	<-b.done
}

// TestGRPCThroughCrashes: calls to muster:///users, repeated by gRPC where that is
// safe, go on through rolling restarts, the crash of a server and that of the
// registry's leader, and none fails.
func TestGRPCThroughCrashes(t *testing.T) {
	c := clustertest.Start(t, 3)
	var fleet [3]*grpcBackend
	for n := range fleet {
		fleet[n] = startGRPC(t, c, fmt.Sprintf("users-%d", n))
	}
	conn, err := grpc.NewClient("muster:///users?namespace=default", append(grpcresolver.DialOptions(newSDK(t, c)),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+grpcresolver.Policy+`":{}}],"methodConfig":[{"name":[{}],"retryPolicy":{
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
	for range max(1, *rollingRounds/4) {
		for n := range fleet {
			fleet[n].leave()
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
