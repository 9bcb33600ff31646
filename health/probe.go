package health

import (
	"context"

	"github.com/muster-registry/muster"
)

// Probe makes one probe of a check, by its place among the checks of i, and
// returns what it found. It counts nothing and waits for no limit.
func Probe(ctx context.Context, g *Guard, i *muster.Instance, place int) Result {
	a := &attempt{inst: i, check: &i.Checks[place], guard: g, routable: func(muster.ServiceKey) int { return 0 }}
	return a.run(ctx)
}
