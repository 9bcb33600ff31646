package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

// runFootprint looks at an empty cluster, fills it, and keeps all of it alive at the
// pace of the default ttl, a beat every third of it, by batches.
func runFootprint(ctx context.Context, w *world) (results []Result, err error) {
	empty, err := w.idle(ctx)
	if err != nil {
		return nil, err
	}
	beating, stop := context.WithCancel(context.WithoutCancel(ctx))
	b := &beater{w: w, every: w.span(muster.DefaultTTL/3, 50*time.Millisecond)}
	defer b.wg.Wait()
	defer stop()
	defer func() {
		if !w.cluster.owned {
			// They are kept alive until they are out: running out, all of them would be a
			// mass loss that holds the leases of others too.
			err = errors.Join(err, w.cleanUp(ctx))
		}
	}()

	var filled Sample
	var mu sync.Mutex
	keys := keysOf(w.namespace, "fill", w.size(100_000, 500))
	before, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}
	repeated := w.repeated.Load()
	began := time.Now()
	err = w.fill(ctx, keys, muster.DefaultTTL.String(), func(batch []muster.InstanceKey, took time.Duration) {
		mu.Lock()
		filled.Ops += len(batch)
		filled.Took = append(filled.Took, took)
		mu.Unlock()
		b.keep(beating, batch)
	})
	if err != nil {
		return nil, err
	}
	filled.Elapsed = time.Since(began)
	slices.Sort(filled.Took)
	after, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}
	fill := resultOf(filled, Usage{CPU: after.CPU - before.CPU, Resident: after.Resident})
	fill.Scenario = "footprint/fill"
	fill.Errors = int(w.repeated.Load() - repeated) // batches that had to be sent again

	// One round first, so that every batch has found its place in it.
	if err := wait(ctx, min(b.every, max(w.cfg.Duration, 100*time.Millisecond))); err != nil {
		return nil, err
	}
	beats, err := w.withBeats(ctx, b, max(w.cfg.Duration, w.span(b.every*2, 200*time.Millisecond)))
	if err != nil {
		return nil, err
	}
	beats.Extra["bytes_per_instance"] = round((beats.RSSMiB - empty.RSSMiB) * (1 << 20) / float64(len(keys)))
	return []Result{empty, fill, beats}, nil
}

// span is long, or short in a quick run.
func (w *world) span(long, short time.Duration) time.Duration {
	if w.cfg.Quick {
		return short
	}
	return long
}

// idle looks at a cluster that does nothing.
func (w *world) idle(ctx context.Context) (Result, error) {
	cores, used, err := w.cores(ctx, w.cfg.Duration)
	if err != nil {
		return Result{}, err
	}
	r := resultOf(Sample{}, used)
	r.Scenario, r.Extra, r.CPUPer1000 = "footprint/empty", cores, 0
	return r, nil
}

// withBeats looks at one that is kept alive.
func (w *world) withBeats(ctx context.Context, b *beater, d time.Duration) (Result, error) {
	b.take()
	began := time.Now()
	cores, used, err := w.cores(ctx, d)
	if err != nil {
		return Result{}, err
	}
	s := b.take()
	s.Elapsed = time.Since(began)
	if s.First != nil {
		return Result{}, s.First
	}
	r := resultOf(s, used)
	r.Scenario, r.Unit, r.Extra = "footprint/beats", "renewals", cores
	return r, nil
}

// cores waits for d and says how many cores the leader, and the busiest of the
// others, were busy with.
func (w *world) cores(ctx context.Context, d time.Duration) (map[string]float64, Usage, error) {
	leader, err := w.cluster.Leader(ctx, w.client)
	if err != nil {
		return nil, Usage{}, err
	}
	before := map[*Node]Usage{}
	began := time.Now()
	for _, n := range w.cluster.Nodes {
		if before[n], err = usageOf(ctx, w.client, n.URL); err != nil {
			return nil, Usage{}, err
		}
	}
	if err := wait(ctx, d); err != nil {
		return nil, Usage{}, err
	}
	var all Usage
	extra := map[string]float64{"leader_cores": 0, "follower_cores": 0}
	for _, n := range w.cluster.Nodes {
		u, err := usageOf(ctx, w.client, n.URL)
		if err != nil {
			return nil, all, err
		}
		cpu := u.CPU - before[n].CPU
		all.CPU += cpu
		all.Resident = max(all.Resident, u.Resident)
		key := "follower_cores"
		if n == leader {
			key = "leader_cores"
		}
		extra[key] = max(extra[key], round(cpu/time.Since(began).Seconds()))
	}
	return extra, all, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// beater keeps batches of instances alive, each by a goroutine of its own.
type beater struct {
	w     *world
	every time.Duration
	wg    sync.WaitGroup

	mu     sync.Mutex
	sample Sample // guarded by mu
}

// keep beats for a batch from now on until ctx ends.
func (b *beater) keep(ctx context.Context, batch []muster.InstanceKey) {
	text, err := beats(batch)
	if err != nil {
		b.note(0, 0, err)
		return
	}
	b.wg.Go(func() {
		pace := time.NewTicker(b.every)
		defer pace.Stop()
		for n := 0; ; n++ {
			select {
			case <-pace.C:
			case <-ctx.Done():
				return
			}
			began := time.Now()
			err := b.w.beat(ctx, n, text)
			if ctx.Err() != nil {
				return
			}
			b.note(len(batch), time.Since(began), err)
		}
	})
}

func (b *beater) note(ops int, took time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		if b.sample.First == nil {
			b.sample.First = fmt.Errorf("keeping instances alive: %w", err)
		}
		return
	}
	b.sample.Ops += ops
	b.sample.Took = append(b.sample.Took, took)
}

// take returns what there was since the last take; a failure stays.
func (b *beater) take() Sample {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sample
	b.sample = Sample{First: s.First}
	slices.Sort(s.Took)
	return s
}
