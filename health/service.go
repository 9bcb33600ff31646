package health

import (
	"context"
	"fmt"

	"github.com/muster-registry/muster"
)

// probeService passes while the service it names has a routable instance. It asks
// this node's own copy of the registry. Services that depend on each other in a
// circle never come up.
func probeService(_ context.Context, a *attempt) Result {
	n := a.routable(muster.ServiceKey{Namespace: a.inst.Namespace, Service: a.check.Service})
	if n == 0 {
		return failed(muster.CheckDependency, fmt.Sprintf("service %s has no routable instance", a.check.Service))
	}
	return Result{Passed: true, Output: fmt.Sprintf("service %s has routable instances", a.check.Service)}
}
