package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

// expiryTTL is that of the leases that fall silent: the least there is.
const expiryTTL = muster.MinTTL

// The governor holds leases everywhere when more than 10, and more than 15 %, ran out
// within a minute. In a running cluster this scenario takes up at most half of the one
// or a third of the other: the rest is for what the others lose meanwhile.
const (
	silentInUse        = 5
	silentInUsePercent = 5
)

// silentIn is how many of most leases may fall silent in a running cluster in which
// that many live that are not this run's.
func silentIn(live, most int) int {
	return min(most, max(silentInUse, live*silentInUsePercent/100))
}

// othersLeases is how many leases live that this run has not made, by the leader's
// account.
func (w *world) othersLeases(ctx context.Context) (int, error) {
	leader, err := w.role(ctx, "leader", 0)
	if err != nil {
		return 0, err
	}
	text, err := send(ctx, w.client, "GET", leader.URL+"/metrics", "", 200)
	if err != nil {
		return 0, fmt.Errorf("reading the metrics: %w", err)
	}
	live, err := metric(text, "muster_lease_live")
	return max(0, int(live)-len(w.keys)), err
}

// runExpiry registers instances and never beats for them. The expiry governor is
// switched off for their service: it would hold what looks like a mass loss, and is.
func runExpiry(ctx context.Context, w *world) (results []Result, err error) {
	const service = "silent"
	settings := w.path(service, "", "/settings")
	if _, err := send(ctx, w.client, "PUT", w.cluster.Nodes[0].URL+settings, `{"protect":false}`, 200); err != nil {
		return nil, err
	}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupFor(1))
		defer cancel()
		_, end := w.remove(after, new(int), settings)
		err = errors.Join(err, end)
	}()
	count := w.size(500, 30)
	if !w.cluster.owned {
		live, err := w.othersLeases(ctx)
		if err != nil {
			return nil, err
		}
		count = silentIn(live, count)
	}
	reader, err := w.role(ctx, "follower", 0)
	if err != nil {
		return nil, err
	}
	gone := silent{at: map[string]time.Time{}}
	s := streams{buffer: muster.MaxBatchBytes}
	defer s.close()
	watch := fmt.Sprintf("%s/v1/watch?namespace=%s&service=%s", reader.URL, w.namespace, service)
	if err := s.open(ctx, w.cfg.TLS, []string{watch}, func(_ int, data []byte) { gone.note(data) }); err != nil {
		return nil, err
	}
	before, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}
	due := map[string]time.Time{}
	began := time.Now()
	pace := time.NewTicker(w.cfg.Duration / time.Duration(count))
	defer pace.Stop()
	for n := range count {
		id := fmt.Sprintf("i-%d", n)
		w.remember([]muster.InstanceKey{{Service: service, ID: id}}) // the run may end before it does
		due[id] = time.Now().Add(expiryTTL)
		url := w.cluster.Nodes[n%len(w.cluster.Nodes)].URL + w.path(service, id, "")
		if _, err := send(ctx, w.client, "PUT", url, body(n, expiryTTL.String()), 201); err != nil {
			return nil, err
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err := until(ctx, "all silent instances to be gone", func() (bool, error) {
		seen, err := gone.count()
		return seen == count, errors.Join(err, s.failed())
	}); err != nil {
		return nil, err
	}
	sample := Sample{Ops: count, Elapsed: time.Since(began)}
	for id, at := range gone.at {
		sample.Took = append(sample.Took, at.Sub(due[id]))
	}
	slices.Sort(sample.Took)
	after, err := w.cluster.meter(w.client).usage(ctx)
	if err != nil {
		return nil, err
	}
	r := resultOf(sample, Usage{CPU: after.CPU - before.CPU, Resident: after.Resident})
	r.Extra = map[string]float64{"earliest_ms": millis(sample.Took[0])}
	return []Result{r}, nil
}

// silent notes when instances were told to have expired.
type silent struct {
	mu  sync.Mutex
	at  map[string]time.Time // guarded by mu
	bad error                // guarded by mu
}

func (s *silent) note(data []byte) {
	now := time.Now()
	var change struct {
		Events []muster.Event `json:"events"`
	}
	err := json.Unmarshal(bytes.TrimPrefix(data, []byte("data:")), &change)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.bad == nil {
		s.bad = fmt.Errorf("reading a change: %w", err)
	}
	for _, e := range change.Events {
		if e.Type == muster.EventExpired {
			s.at[e.ID] = now
		}
	}
}

func (s *silent) count() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at), s.bad
}
