// Command server is a gRPC UserService that keeps itself registered as "users".
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/client/grpcserver"
	"github.com/muster-registry/muster/examples/grpc/users"
	"github.com/muster-registry/muster/tracing"
)

func main() {
	registry := flag.String("registry", "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420", "API addresses of the registry's nodes")
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on; port 0 is any")
	id := flag.String("id", "users-1", "id of this instance")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *registry, *listen, *id); err != nil {
		slog.Error("the server ends", "err", err)
		os.Exit(1)
	}
}

// service is the UserService.
type service struct {
	users.UnimplementedUserServiceServer
	id    string
	names []string
}

func (s *service) GetUser(_ context.Context, r *users.GetUserRequest) (*users.User, error) {
	if r.GetId() == 0 || r.GetId() > uint64(len(s.names)) {
		return nil, status.Errorf(codes.NotFound, "there is no user %d", r.GetId())
	}
	return &users.User{Id: r.GetId(), Name: s.names[r.GetId()-1], ServedBy: s.id}, nil
}

// serve answers calls until ctx ends, and none of them is cut off. The registry's own
// nodes, and callers that want to, ask grpc.health.v1 whether it is well.
func serve(ctx context.Context, registry, listen, id string) error {
	// Where the OTEL_* variables ask for traces.
	_, stopTraces, err := tracing.Start(ctx, tracing.Config{Service: "users"})
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	defer stopTraces()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	at := l.Addr().(*net.TCPAddr)
	server := grpc.NewServer(grpcserver.Options()...)
	users.RegisterUserServiceServer(server, &service{id: id, names: []string{"ada", "grace", "barbara"}})
	healthy, err := grpcserver.New(server, grpcserver.Config{Logger: slog.Default()})
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Addrs: strings.Split(registry, ",")})
	if err != nil {
		return fmt.Errorf("the registry: %w", err)
	}
	defer c.Close()
	session, err := c.Register(ctx, muster.Instance{
		Service: "users", ID: id, Address: at.IP.String(), Port: at.Port,
		Checks: []muster.Check{{Type: muster.CheckGRPC, Interval: muster.Duration(time.Second)}},
	}, client.Drain(time.Second))
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	slog.Info("serving", "id", id, "address", at.String())
	return healthy.Serve(l, session)
}
