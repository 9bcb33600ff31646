package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// kills is how often the leader is killed.
const kills = 10

// runFailover kills the leader's process and starts it again, while writers go on at
// the others.
func runFailover(ctx context.Context, w *world) ([]Result, error) {
	var all Sample
	for n := range w.size(kills, 1) {
		took, err := w.failOver(ctx, n)
		if err != nil {
			return nil, err
		}
		all.Ops++
		all.Elapsed += took
		all.Took = append(all.Took, took)
	}
	slices.Sort(all.Took)
	used, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}
	r := resultOf(all, Usage{Resident: used.Resident})
	r.PerSecond, r.CPUPer1000 = 0, 0 // mean nothing here
	return []Result{r}, nil
}

// failOver is one kill. Four writers at each of the survivors register without pause;
// what counts is the first acknowledgement of a write that was sent after the kill.
func (w *world) failOver(ctx context.Context, round int) (time.Duration, error) {
	leader, err := w.cluster.Leader(ctx, w.client)
	if err != nil {
		return 0, err
	}
	writing, stop := context.WithCancel(ctx)
	var log ackLog
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for n, survivor := range w.cluster.Followers(leader) {
		for c := range 4 {
			wg.Go(func() {
				for call := 0; writing.Err() == nil; call++ {
					url := survivor.URL + w.path(fmt.Sprintf("failover-%d", n), fmt.Sprintf("i-%d-%d-%d", round, c, call%100), "") + "&timeout=5s"
					sent := time.Now()
					if _, err := send(writing, w.client, "PUT", url, body(call, long), 200, 201); err == nil {
						log.note(sent, time.Now())
					}
				}
			})
		}
	}
	if err := untilSoon(ctx, "writes before the kill", func() (bool, error) { return log.count() >= 20, nil }); err != nil {
		return 0, err
	}
	killed := leader.Kill()
	var took time.Duration
	err = untilSoon(ctx, "a write after the kill", func() (bool, error) {
		var ok bool
		took, ok = log.firstAfter(killed)
		return ok, nil
	})
	if err != nil {
		return 0, err
	}
	stop()
	wg.Wait()
	return took, leader.Restart(ctx, w.client)
}

// ackLog is when acknowledged writes were sent and answered.
type ackLog struct {
	mu   sync.Mutex
	acks [][2]time.Time // guarded by mu
}

func (l *ackLog) note(sent, answered time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = append(l.acks, [2]time.Time{sent, answered})
}

func (l *ackLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

// firstAfter is how long after t the first write was answered that was sent after it.
func (l *ackLog) firstAfter(t time.Time) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.acks {
		if a[0].After(t) {
			return a[1].Sub(t), true
		}
	}
	return 0, false
}
