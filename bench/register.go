package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// runRegister registers new instances, one a request, in turn with the floor.
func runRegister(ctx context.Context, w *world) (results []Result, err error) {
	bare, err := startFloor(w.cfg.Command, FloorRaft)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.stop()) }()
	var seq atomic.Int64
	// However this ends, what was sent is to be taken out of a running cluster.
	defer func() { w.remember(registeredKeys(int(seq.Load()))) }()
	// Services of about a hundred: what a change costs depends on the size of its
	// service's view.
	l := Load{Clients: w.cfg.Clients, Do: func(ctx context.Context, client, _ int) (int, error) {
		n := int(seq.Add(1))
		url := w.cluster.Nodes[client%len(w.cluster.Nodes)].URL + w.path(fmt.Sprintf("registered-%d", n/100), fmt.Sprintf("i-%d", n%100), "")
		_, err := send(ctx, w.client, "PUT", url, body(n, long), 201, 200)
		return 1, err
	}}
	d := w.cfg.Duration
	order := raftOrder{w.cfg.Clients, d / 2 / time.Duration(w.rounds()), len(item(w.namespace, "registered-100", "i-100", 1, long))}
	var ours, theirs Sample
	var cost, floorCost Usage
	most := w.mostRegistrations()
	l.Most = most / 10
	l.Measure(ctx, warm(d))
	l.Most = most * 9 / 10 / w.rounds()
	if _, _, err := measureRaft(ctx, w.client, bare, raftOrder{order.Clients, warm(d), order.Bytes}); err != nil {
		return nil, err
	}
	for range w.rounds() {
		s, u, err := measureRaft(ctx, w.client, bare, order)
		if err != nil {
			return nil, err
		}
		theirs.Merge(s)
		floorCost.CPU += u.CPU
		s, u, err = priced(ctx, w.cluster.meter(w.client), l, d/time.Duration(w.rounds()))
		if err != nil {
			return nil, err
		}
		ours.Merge(s)
		cost.CPU, cost.Resident = cost.CPU+u.CPU, u.Resident
	}
	if ours.Ops == 0 {
		return nil, fmt.Errorf("nothing was registered: %w", ours.First)
	}
	r := resultOf(ours, cost)
	r.Floor = floorOf("hashicorp/raft", r, theirs, floorCost)
	return []Result{r}, nil
}

// How many instances register makes in a running cluster: the owner of one keeps its
// journal of 10,000 transitions, of which each is one and its removal another, unless
// register is what is asked for.
const (
	registrationsInUse = 500
	registrationsNamed = 5000
)

// mostRegistrations is how many instances register may make; 0 for any number.
func (w *world) mostRegistrations() int {
	switch {
	case w.cluster.owned:
		return 0
	case w.cfg.names("register"):
		return registrationsNamed
	}
	return registrationsInUse
}

// registeredKeys are those of the first count instances that register makes.
func registeredKeys(count int) []muster.InstanceKey {
	keys := make([]muster.InstanceKey, count)
	for n := range keys {
		keys[n] = muster.InstanceKey{Service: fmt.Sprintf("registered-%d", (n+1)/100), ID: fmt.Sprintf("i-%d", (n+1)%100)}
	}
	return keys
}
