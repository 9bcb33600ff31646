package grpcserver_test

import (
	"context"
	"log/slog"
	"net"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/client/grpcserver"
)

// A server that is checked by the registry, and leaves without losing a call when the
// process is told to end.
func ExampleServer_Serve() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", "10.0.0.5:9000")
	if err != nil {
		slog.Error("listening", "err", err)
		return
	}
	server := grpc.NewServer(grpcserver.Options()...)
	// Here the program registers its services on server.
	s, err := grpcserver.New(server, grpcserver.Config{})
	if err != nil {
		slog.Error("the health service", "err", err)
		return
	}
	c, err := client.New(client.Config{Addrs: []string{"127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7420"}})
	if err != nil {
		slog.Error("bad configuration", "err", err)
		return
	}
	defer c.Close()
	session, err := c.Register(ctx, muster.Instance{
		Service: "users", ID: "users-1", Address: "10.0.0.5", Port: 9000,
		Checks: []muster.Check{{Type: muster.CheckGRPC}},
	}, client.Drain(time.Second), client.Because("deploy 1.4.2"))
	if err != nil {
		slog.Error("not an instance", "err", err)
		return
	}
	if err := s.Serve(l, session); err != nil {
		slog.Error("serving", "err", err)
	}
}
