package grpcresolver_test

import (
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/client/grpcresolver"
)

// A connection to whichever instances of service users take connections at the port
// they name grpc: picked by the service's own settings, left out while they say that
// they are not well, and asked again elsewhere where a call never reached one.
func ExampleDialOptions() {
	c, err := client.New(client.Config{Addrs: []string{"127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7420"}, Zone: "eu-1a"})
	if err != nil {
		slog.Error("bad configuration", "err", err)
		return
	}
	defer c.Close()
	conn, err := grpc.NewClient("muster:///users?port=grpc", append(grpcresolver.DialOptions(c),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{
			"loadBalancingConfig": [{"`+grpcresolver.Policy+`": {}}],
			"healthCheckConfig": {"serviceName": ""},
			"methodConfig": [{"name": [{}], "retryPolicy": {
				"maxAttempts": 4, "initialBackoff": "0.02s", "maxBackoff": "0.5s", "backoffMultiplier": 2,
				"retryableStatusCodes": ["UNAVAILABLE"]
			}}]
		}`))...)
	if err != nil {
		slog.Error("no connection can be made so", "err", err)
		return
	}
	defer conn.Close()
	// Here the program makes the client of its service with conn.
}
