package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// runPropagation writes on one node and listens on another. Ten pairs of writer and
// stream go on at once, each with a service of its own.
func runPropagation(ctx context.Context, w *world, from, to string) ([]Result, error) {
	writer, err := w.role(ctx, from, 0)
	if err != nil {
		return nil, err
	}
	reader, err := w.role(ctx, to, 1)
	if err != nil {
		return nil, err
	}
	const pairs = 10
	services, urls, told := make([]string, pairs), make([]string, pairs), make([]chan heard, pairs)
	for n := range pairs {
		if services[n], err = w.service(ctx, fmt.Sprintf("pair%d", n), 1, long); err != nil {
			return nil, err
		}
		urls[n] = fmt.Sprintf("%s/v1/watch?namespace=%s&service=%s", reader.URL, w.namespace, services[n])
		told[n] = make(chan heard, 16)
	}
	s := streams{buffer: 16 << 10}
	defer s.close()
	err = s.open(ctx, w.cfg.TLS, urls, func(n int, data []byte) {
		select {
		case told[n] <- heard{time.Now(), string(data)}:
		default: // nobody listens any more
		}
	})
	if err != nil {
		return nil, err
	}
	before, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}
	parts := make([]Sample, pairs)
	var wg sync.WaitGroup
	began := time.Now()
	for n := range pairs {
		wg.Go(func() {
			parts[n].First = w.propagate(ctx, &parts[n], writer.URL+w.path(services[n], "i-0", ""), n, told[n])
		})
	}
	wg.Wait()
	after, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}
	all := Sample{Elapsed: time.Since(began)}
	for _, p := range parts {
		if p.First != nil {
			return nil, p.First
		}
		all.Ops, all.Took = all.Ops+p.Ops, append(all.Took, p.Took...)
	}
	slices.Sort(all.Took)
	return []Result{resultOf(all, Usage{CPU: after.CPU - before.CPU, Resident: after.Resident})}, nil
}

// heard is what a stream was told, and when.
type heard struct {
	at   time.Time
	data string
}

// propagate is one pair.
func (w *world) propagate(ctx context.Context, s *Sample, url string, pair int, told <-chan heard) error {
	pace := time.NewTicker(betweenChanges)
	defer pace.Stop()
	for began := time.Now(); s.Ops == 0 || time.Since(began) < w.cfg.Duration; {
		sent := time.Now()
		// What it cannot have had before, also not from an earlier scenario.
		body := fmt.Sprintf(`{"address":"10.0.0.5","port":%d,"ttl":%q,"meta":{"at":"%d"}}`, 1+pair, long, sent.UnixNano())
		if _, err := send(ctx, w.client, "PUT", url, body, 200); err != nil {
			return err
		}
		at, err := hear(ctx, told, strconv.FormatInt(sent.UnixNano(), 10))
		if err != nil {
			return err
		}
		s.Ops++
		s.Took = append(s.Took, at.Sub(sent))
		select {
		case <-pace.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// hear waits until a stream was told what holds mark. Another change may come before
// it: of an earlier scenario, on a node that was behind.
func hear(ctx context.Context, told <-chan heard, mark string) (time.Time, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case h := <-told:
			if strings.Contains(h.data, mark) {
				return h.at, nil
			}
		case <-late.C:
			return time.Time{}, fmt.Errorf("a change was not told within %s", patience)
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}
