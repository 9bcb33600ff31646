// Command caller calls the gRPC service "users" by its name, whichever instances are
// there.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/client/grpcresolver"
	"github.com/muster-registry/muster/examples/grpc/users"
	"github.com/muster-registry/muster/tracing"
)

// retries has gRPC send a call again on another instance where the first could not
// answer it, and ask each instance itself whether it is well.
const retries = `{
	"loadBalancingConfig": [{"` + grpcresolver.Policy + `": {}}],
	"healthCheckConfig": {"serviceName": "users.UserService"},
	"methodConfig": [{
		"name": [{"service": "users.UserService"}],
		"waitForReady": true,
		"retryPolicy": {
			"maxAttempts": 5, "initialBackoff": "0.02s", "maxBackoff": "0.5s", "backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]
		}
	}]
}`

func main() {
	registry := flag.String("registry", "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420", "API addresses of the registry's nodes")
	every := flag.Duration("every", 500*time.Millisecond, "time between two calls")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := call(ctx, *registry, *every); err != nil {
		slog.Error("the caller ends", "err", err)
		os.Exit(1)
	}
}

// call calls until ctx ends.
func call(ctx context.Context, registry string, every time.Duration) error {
	// Where the OTEL_* variables ask for traces.
	_, stopTraces, err := tracing.Start(ctx, tracing.Config{Service: "users-caller"})
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	defer stopTraces()
	c, err := client.New(client.Config{Addrs: strings.Split(registry, ",")})
	if err != nil {
		return fmt.Errorf("the registry: %w", err)
	}
	defer c.Close()
	conn, err := grpc.NewClient("muster:///users", append(grpcresolver.DialOptions(c),
		grpc.WithDefaultServiceConfig(retries), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return fmt.Errorf("the connection: %w", err)
	}
	defer conn.Close()

	people := users.NewUserServiceClient(conn)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		user, err := get(ctx, people, n%3+1)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			fmt.Println("FAILED:", err)
		default:
			fmt.Printf("user %d is %s, says %s\n", user.GetId(), user.GetName(), user.GetServedBy())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func get(ctx context.Context, people users.UserServiceClient, id uint64) (*users.User, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return people.GetUser(ctx, &users.GetUserRequest{Id: id})
}
