package bench

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Sample is what a load brought.
type Sample struct {
	Ops     int           // what succeeded
	Errors  int           // calls that failed
	First   error         // the first failure, if any
	Elapsed time.Duration // measured
	// Took is how long each successful call took, in ascending order.
	Took []time.Duration
}

// Merge adds another round of the same.
func (s *Sample) Merge(o Sample) {
	s.Ops, s.Errors, s.Elapsed = s.Ops+o.Ops, s.Errors+o.Errors, s.Elapsed+o.Elapsed
	if s.First == nil {
		s.First = o.First
	}
	s.Took = append(s.Took, o.Took...)
	slices.Sort(s.Took)
}

// PerSecond is the throughput.
func (s *Sample) PerSecond() float64 {
	if s.Elapsed <= 0 {
		return 0
	}
	return float64(s.Ops) / s.Elapsed.Seconds()
}

// Quantile is the duration that a share q of the calls, 0 to 1, did not exceed; 0
// where there were none.
func (s *Sample) Quantile(q float64) time.Duration {
	if len(s.Took) == 0 {
		return 0
	}
	return s.Took[max(0, int(math.Ceil(q*float64(len(s.Took))))-1)]
}

// Load sends call after call from a number of clients, each of them the next when the
// last was answered (a closed loop): what is slow is asked less often, so that the
// latencies are those of that many clients and of no arrival rate.
type Load struct {
	Clients int
	// Do is one call of a client, from 0, by its number, from 0; it returns how many
	// operations that was. It is called by all clients at once.
	Do func(ctx context.Context, client, call int) (ops int, err error)
	// Most is how many calls one measurement makes at most, all clients together; it
	// ends early when they are made. 0: any number.
	Most int
}

// Measure runs the load for d. It returns early when ctx ends.
func (l Load) Measure(ctx context.Context, d time.Duration) Sample {
	parts := make([]Sample, l.Clients)
	var wg sync.WaitGroup
	var calls atomic.Int64
	start := time.Now()
	for c := range l.Clients {
		wg.Go(func() {
			p := &parts[c]
			for call := 0; ctx.Err() == nil; call++ {
				began := time.Now()
				if began.Sub(start) >= d || l.Most > 0 && calls.Add(1) > int64(l.Most) {
					return
				}
				ops, err := l.Do(ctx, c, call)
				if err != nil {
					p.Errors++
					if p.First == nil {
						p.First = err
					}
					continue
				}
				p.Ops += ops
				p.Took = append(p.Took, time.Since(began))
			}
		})
	}
	wg.Wait()
	all := Sample{Elapsed: time.Since(start)}
	for _, p := range parts {
		all.Ops, all.Errors = all.Ops+p.Ops, all.Errors+p.Errors
		if all.First == nil {
			all.First = p.First
		}
		all.Took = append(all.Took, p.Took...)
	}
	slices.Sort(all.Took)
	return all
}

// send sends a request, reads the answer to its end and wants one of the statuses.
func send(ctx context.Context, client *http.Client, method, url, body string, want ...int) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("making a request: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	if !slices.Contains(want, resp.StatusCode) {
		return "", &refusal{method, url, resp.StatusCode, string(text)}
	}
	return string(text), nil
}

// refusal is an answer of another status than was wanted.
type refusal struct {
	method, url string
	status      int
	text        string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s %s answered %d: %.300s", r.method, r.url, r.status, r.text)
}

// priced measures a load on nodes, and what it costs them.
func priced(ctx context.Context, u usage, l Load, d time.Duration) (Sample, Usage, error) {
	before, err := u.usage(ctx)
	if err != nil {
		return Sample{}, Usage{}, err
	}
	s := l.Measure(ctx, d)
	if err := ctx.Err(); err != nil {
		return s, Usage{}, context.Cause(ctx)
	}
	after, err := u.usage(ctx)
	after.CPU -= before.CPU
	return s, after, err
}

// warm is how long a load runs before it is measured: connections are made, caches
// filled.
func warm(d time.Duration) time.Duration { return min(d/4, 300*time.Millisecond) }

// rounds is into how many rounds a measurement with a floor is cut.
func (w *world) rounds() int {
	if w.cfg.Quick {
		return 1
	}
	return 2
}

// measure measures a load on the cluster; against, if not nil, is measured in turn with
// it, in rounds half as long, so that both see the same machine.
func (w *world) measure(ctx context.Context, l, against Load, floorName string, fl usage) (Result, error) {
	d := w.cfg.Duration
	var ours, theirs Sample
	var cost, floorCost Usage
	rounds := func(s *Sample, c *Usage, u usage, l Load, d time.Duration) error {
		l.Measure(ctx, warm(d))
		got, used, err := priced(ctx, u, l, d)
		s.Merge(got)
		c.CPU += used.CPU
		c.Resident = max(c.Resident, used.Resident)
		return err
	}
	for range w.rounds() {
		if fl != nil {
			if err := rounds(&theirs, &floorCost, fl, against, d/2/time.Duration(w.rounds())); err != nil {
				return Result{}, err
			}
		}
		if err := rounds(&ours, &cost, w.cluster.meter(w.client), l, d/time.Duration(w.rounds())); err != nil {
			return Result{}, err
		}
	}
	r := resultOf(ours, cost)
	if fl != nil {
		r.Floor = floorOf(floorName, r, theirs, floorCost)
	}
	if ours.Ops == 0 {
		return r, fmt.Errorf("nothing succeeded: %w", ours.First)
	}
	return r, nil
}
