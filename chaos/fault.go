package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// need is what a fault cannot do without.
type need int

const (
	needsNothing   need = iota
	needsNetwork        // a network of its own for each node
	needsSmallDisk      // a node on a small disk
)

// row is one kind of fault. What inject has done is undone by Cluster.Heal and by
// starting the processes that do not run, after a hold.
type row struct {
	name string
	need need
	// hold is for how many seconds it lasts, at least and at most; 0, 0: inject has
	// taken the time that it needs.
	hold [2]float64
	// died is whether processes end in it, so that a fast election may be due.
	died bool
	// stall is whether no majority works at some time.
	stall  bool
	inject func(*injection) error
}

// injection is one fault while it is being injected.
type injection struct {
	ctx  context.Context
	c    *Cluster
	rng  *rand.Rand
	span *FaultSpan
	dir  string // for files that it needs
}

// on notes to which nodes something is done.
func (f *injection) on(nodes ...*Node) {
	for _, n := range nodes {
		if !slices.Contains(f.span.Nodes, n.Name) {
			f.span.Nodes = append(f.span.Nodes, n.Name)
		}
	}
}

// shock notes that now something is done that may cost a leader, again.
func (f *injection) shock() { f.span.Shocks = append(f.span.Shocks, time.Now()) }

// note adds to what there is to say of the fault.
func (f *injection) note(format string, args ...any) {
	if f.span.Note != "" {
		f.span.Note += "; "
	}
	f.span.Note += fmt.Sprintf(format, args...)
}

// leader waits for a leader and returns it, and the other nodes in an order by chance.
func (f *injection) leader() (leader *Node, others []*Node, err error) {
	ctx, cancel := context.WithTimeout(f.ctx, 20*time.Second)
	defer cancel()
	if leader, err = f.c.Leader(ctx); err != nil {
		return nil, nil, err
	}
	for _, n := range f.c.Nodes() {
		if n != leader {
			others = append(others, n)
		}
	}
	f.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	return leader, others, nil
}

// together has one fault come upon another.
func together(first, then func(*injection) error) func(*injection) error {
	return func(f *injection) error {
		if err := first(f); err != nil {
			return err
		}
		if err := f.wait(0.5, 2); err != nil {
			return err
		}
		f.shock()
		return then(f)
	}
}

// pick returns the leader or a node that follows it.
func (f *injection) pick(leads bool) (*Node, error) {
	leader, others, err := f.leader()
	if err != nil || leads {
		return leader, err
	}
	return others[0], nil
}

// wait lets between so many seconds pass.
func (f *injection) wait(least, most float64) error {
	return wait(f.ctx, between(f.rng, least, most))
}

func between(rng *rand.Rand, least, most float64) time.Duration {
	return time.Duration((least + rng.Float64()*(most-least)) * float64(time.Second))
}

// wait lets time pass, or returns why it may not.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// each does something to every founder.
func (f *injection) each(do func(*Node) error) error {
	var errs []error
	for _, n := range f.c.Nodes() {
		f.on(n)
		errs = append(errs, do(n))
	}
	return errors.Join(errs...)
}
