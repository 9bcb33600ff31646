package health

import (
	"context"

	"github.com/muster-registry/muster"
)

// probeTCP passes where the target takes a connection.
func probeTCP(ctx context.Context, a *attempt) Result {
	conn, err := a.dial(ctx)
	if err != nil {
		return failedBy(err, muster.CheckUnreachable)
	}
	_ = conn.Close() // that it was there is all that was asked
	return Result{Passed: true, Output: "connected"}
}
