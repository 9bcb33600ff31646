package bench

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// betweenChanges keeps changes apart: a stream is woken at most once in 50 ms, and
// what is measured is how soon, not that.
const betweenChanges = 100 * time.Millisecond

// runWatch opens streams of one service of ten, spread over all nodes, and changes it
// again and again, each time when all were told of the last change.
func runWatch(ctx context.Context, w *world, count int) ([]Result, error) {
	count = w.size(count, 3)
	service, err := w.service(ctx, "watched", 10, long)
	if err != nil {
		return nil, err
	}
	before, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}
	urls := make([]string, count)
	for n := range urls {
		urls[n] = fmt.Sprintf("%s/v1/watch?namespace=%s&service=%s", w.cluster.Nodes[n%len(w.cluster.Nodes)].URL, w.namespace, service)
	}
	var all crowd
	all.told = make([]time.Time, count)
	var s streams
	defer s.close()
	if err := s.open(ctx, w.cfg.TLS, urls, func(stream int, _ []byte) { all.note(stream) }); err != nil {
		return nil, err
	}
	opened, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}

	var sample Sample
	leader, err := w.role(ctx, "leader", 0)
	if err != nil {
		return nil, err
	}
	pace := time.NewTicker(betweenChanges)
	defer pace.Stop()
	for change, began := 0, time.Now(); change < 5 || time.Since(began) < w.cfg.Duration; change++ {
		all.left.Store(int64(count))
		sent := time.Now()
		body := fmt.Sprintf(`{"address":"10.0.0.5","port":8080,"ttl":%q,"weight":%d}`, long, 1+change%60_000)
		if _, err := send(ctx, w.client, "PUT", leader.URL+w.path(service, "i-0", ""), body, 200); err != nil {
			return nil, err
		}
		if err := untilSoon(ctx, "all watchers to be told", func() (bool, error) { return all.left.Load() <= 0, s.failed() }); err != nil {
			return nil, err
		}
		for _, told := range all.told {
			sample.Took = append(sample.Took, told.Sub(sent))
		}
		sample.Ops += count
		sample.Elapsed += slices.MaxFunc(all.told, time.Time.Compare).Sub(sent)
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	slices.Sort(sample.Took)
	after, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}
	r := resultOf(sample, Usage{CPU: after.CPU - opened.CPU, Resident: after.Resident})
	r.Extra = map[string]float64{
		"watchers":        float64(count),
		"changes":         float64(sample.Ops / count),
		"kib_per_watcher": round(max(0, max(after.Resident, opened.Resident)-before.Resident) * float64(len(w.cluster.Nodes)) / float64(count) / 1024),
	}
	return []Result{r}, nil
}

// crowd notes when each watcher was told of the current change. A watcher's time is
// written by its own goroutine before it takes itself off left, and read when nobody
// is left.
type crowd struct {
	told []time.Time
	left atomic.Int64
}

func (c *crowd) note(n int) {
	c.told[n] = time.Now()
	c.left.Add(-1)
}
