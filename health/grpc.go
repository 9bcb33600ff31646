package health

import (
	"context"
	"net"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/muster-registry/muster"
)

// probeGRPC asks the gRPC health protocol (grpc.health.v1), over h2c or TLS, and
// passes where the answer is SERVING and does not come from another instance.
func probeGRPC(ctx context.Context, a *attempt) Result {
	var dialled atomic.Pointer[error] // why no connection came about
	creds := insecure.NewCredentials()
	if a.check.TLS {
		creds = credentials.NewTLS(insecureTLS(a.inst.Address))
	}
	conn, err := grpc.NewClient("passthrough:///"+a.address(),
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := a.dial(ctx)
			if err != nil {
				dialled.Store(&err)
			}
			return conn, err
		}),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithUserAgent(userAgent),
		grpc.WithMaxHeaderListSize(maxHead),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxBody)),
	)
	if err != nil {
		return failed(muster.CheckProtocol, err.Error())
	}
	defer func() { _ = conn.Close() }() // the answer has been judged
	var header metadata.MD
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: a.check.Service}, grpc.Header(&header))
	if failure := dialled.Load(); err != nil && failure != nil {
		return failedBy(*failure, muster.CheckUnreachable)
	}
	if r, ok := impostor(a.inst.ID, header.Get(strings.ToLower(identityHeader))); !ok {
		return r
	}
	switch code := status.Code(err); {
	case code == codes.DeadlineExceeded:
		return failedBy(context.DeadlineExceeded, muster.CheckTimeout)
	case code == codes.NotFound:
		return failed(muster.CheckNotServing, "the target does not know the service "+a.check.Service)
	case err != nil:
		return failed(muster.CheckProtocol, "the health call failed with "+code.String())
	case answer.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return failed(muster.CheckNotServing, answer.GetStatus().String())
	}
	return Result{Passed: true, Output: "SERVING"}
}
