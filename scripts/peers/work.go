package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster/bench"
)

// work is one row of the comparison.
type work struct {
	name string
	do   func(context.Context, system) (row, error)
}

// works are all rows; each is done by all systems before the next.
func works(s settings) []work {
	registered := map[string]int{} // by system
	load := func(do func(context.Context, system, int, int) error) func(context.Context, system) (row, error) {
		return func(ctx context.Context, sys system) (row, error) { return s.load(ctx, sys, do) }
	}
	return []work{
		{"register, own lease", func(ctx context.Context, sys system) (row, error) {
			var seq atomic.Int64
			r, err := s.load(ctx, sys, func(ctx context.Context, sys system, client, _ int) error {
				return sys.register(ctx, client, int(seq.Add(1)))
			})
			registered[sys.name()] = int(seq.Load())
			return r, err
		}},
		{"register, shared lease", func(ctx context.Context, sys system) (row, error) {
			var seq atomic.Int64
			return s.load(ctx, sys, func(ctx context.Context, sys system, client, _ int) error {
				return sys.registerShared(ctx, client, int(seq.Add(1)))
			})
		}},
		{"keep one lease alive", func(ctx context.Context, sys system) (row, error) {
			// Of those that are surely there.
			count := max(1, registered[sys.name()]-s.clients)
			return s.load(ctx, sys, func(ctx context.Context, sys system, client, call int) error {
				return sys.keepalive(ctx, client, 1+(client*7919+call)%count)
			})
		}},
		{"read 100, local", load(func(ctx context.Context, sys system, client, _ int) error { return sys.read(ctx, client, false) })},
		{"read 100, linearizable", load(func(ctx context.Context, sys system, client, _ int) error { return sys.read(ctx, client, true) })},
		{"propagation", s.propagate},
		{"failover, kill -9", s.failover},
	}
}

// warm gives a system some of the work before any of it is measured: a JVM compiles
// what it does often.
func (s settings) warm(ctx context.Context, sys system) error {
	if err := sys.fill(ctx); err != nil {
		return err
	}
	var seq atomic.Int64
	seq.Store(1_000_000) // apart from what is measured
	sample := bench.Load{Clients: s.clients, Do: func(ctx context.Context, client, call int) (int, error) {
		if call%2 == 0 {
			return 1, sys.registerShared(ctx, client, int(seq.Add(1)))
		}
		return 1, sys.read(ctx, client, call%4 == 1)
	}}.Measure(ctx, s.duration)
	return sample.First
}

// load runs a closed loop for the time of a row, warmed for a quarter of it.
func (s settings) load(ctx context.Context, sys system, do func(ctx context.Context, sys system, client, call int) error) (row, error) {
	l := bench.Load{Clients: s.clients, Do: func(ctx context.Context, client, call int) (int, error) {
		return 1, do(ctx, sys, client, call)
	}}
	if err := do(ctx, sys, 0, 0); err != nil {
		return row{}, err
	}
	l.Measure(ctx, s.duration/4)
	return priced(sys, func() (bench.Sample, error) {
		sample := l.Measure(ctx, s.duration)
		if err := ctx.Err(); err != nil {
			return sample, err
		}
		if sample.Errors > 0 {
			return sample, fmt.Errorf("%d errors: %w", sample.Errors, sample.First)
		}
		return sample, nil
	})
}

func priced(sys system, do func() (bench.Sample, error)) (row, error) {
	before, _, err := usage(sys.pids())
	if err != nil {
		return row{}, err
	}
	sample, err := do()
	if err != nil {
		return row{}, err
	}
	after, resident, err := usage(sys.pids())
	return rowOf(sample, after-before, resident), err
}

// betweenChanges is more than the 50 ms that Muster keeps between two messages of a
// stream, and what a change took: it is measured how soon, not that.
const betweenChanges = 100 * time.Millisecond

// propagate writes on one follower and listens on the other, one change at a time.
func (s settings) propagate(ctx context.Context, sys system) (row, error) {
	leader, err := sys.leader(ctx)
	if err != nil {
		return row{}, err
	}
	told := make(chan time.Time, 16)
	stop, err := sys.watch(ctx, (leader+2)%3, func() { told <- time.Now() })
	if err != nil {
		return row{}, err
	}
	defer stop()
	return priced(sys, func() (bench.Sample, error) {
		var sample bench.Sample
		pace := time.NewTicker(betweenChanges)
		defer pace.Stop()
		began := time.Now()
		for n := 1; time.Since(began) < 2*s.duration; n++ {
			sent := time.Now()
			if err := sys.change(ctx, (leader+1)%3, n); err != nil {
				return sample, err
			}
			select {
			case at := <-told:
				sample.Took = append(sample.Took, at.Sub(sent))
				sample.Ops++
			case <-time.After(patience):
				return sample, errors.New("a change was not told")
			}
			<-pace.C
		}
		slices.Sort(sample.Took)
		return sample, nil // no throughput: it waits most of the time
	})
}

// attempt bounds one write during a failover, and then it is tried again: etcd lets a
// write wait for seven seconds that came while there was no leader.
const attempt = 250 * time.Millisecond

// failover kills the leader again and again.
func (s settings) failover(ctx context.Context, sys system) (row, error) {
	var sample bench.Sample
	for range s.kills {
		took, err := failOver(ctx, sys)
		if err != nil {
			return row{}, err
		}
		sample.Ops++
		sample.Took = append(sample.Took, took)
	}
	slices.Sort(sample.Took)
	_, resident, err := usage(sys.pids())
	r := rowOf(sample, 0, resident)
	return r, err
}

// failOver is one kill: four writers at each survivor go on, and what counts is the
// first acknowledgement of a write that was sent after it.
func failOver(ctx context.Context, sys system) (time.Duration, error) {
	leader, err := sys.leader(ctx)
	if err != nil {
		return 0, err
	}
	writing, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	var acks [][2]time.Time // guarded by mu: sent and answered
	var wg sync.WaitGroup
	for c := range 8 {
		node := (leader + 1 + c%2) % 3
		wg.Go(func() {
			for n := c; writing.Err() == nil; n += 8 {
				try, cancel := context.WithTimeout(writing, attempt)
				sent := time.Now()
				err := sys.write(try, node, n)
				cancel()
				if err == nil {
					mu.Lock()
					acks = append(acks, [2]time.Time{sent, time.Now()})
					mu.Unlock()
				}
			}
		})
	}
	seen := func(from time.Time) (time.Duration, int) {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range acks {
			if a[0].After(from) {
				return a[1].Sub(from), len(acks)
			}
		}
		return 0, len(acks)
	}
	if err := until(ctx, "writes before the kill", func() bool { _, count := seen(time.Now()); return count >= 20 }); err != nil {
		return 0, err
	}
	killed := sys.kill(leader)
	var took time.Duration
	err = until(ctx, "a write after the kill", func() bool { took, _ = seen(killed); return took > 0 })
	stop()
	wg.Wait()
	if err != nil {
		return 0, err
	}
	return took, sys.restart(ctx, leader)
}
