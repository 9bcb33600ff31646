package bench

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-registry/muster"
)

// body is an instance as the loads register it: of middling size.
func body(n int, ttl string) string {
	return fmt.Sprintf(`{"address":"10.%d.%d.%d","port":8080,"ttl":%q,"version":"1.4.2","zone":"eu-1a","tags":["canary"],"meta":{"team":"pay"}}`,
		n>>16&255, n>>8&255, n&255, ttl)
}

// item is the same in a batch.
func item(namespace, service, id string, n int, ttl string) string {
	return fmt.Sprintf(`{"namespace":%q,"service":%q,"id":%q,%s`, namespace, service, id, body(n, ttl)[1:])
}

// path is that of an instance, or of its service where id is "".
func (w *world) path(service, id string, more string) string {
	p := "/v1/services/" + url.PathEscape(service)
	if id != "" {
		p += "/instances/" + url.PathEscape(id)
	}
	return p + more + "?namespace=" + w.namespace
}

// long is a ttl that outlives the longest run, so that what is not beaten stays: ending
// in a running cluster, so many leases would look like a mass loss.
const long = "8h"

// service fills a service with size instances of that ttl, once, and returns its
// name. Instances are called i-0, i-1, ….
func (w *world) service(ctx context.Context, kind string, size int, ttl string) (string, error) {
	name := fmt.Sprintf("%s-%d", kind, size)
	if w.fixtures[name] {
		return name, nil
	}
	keys := make([]muster.InstanceKey, size)
	for n := range keys {
		keys[n] = muster.InstanceKey{Namespace: w.namespace, Service: name, ID: fmt.Sprintf("i-%d", n)}
	}
	if err := w.fill(ctx, keys, ttl, nil); err != nil {
		return name, err
	}
	for _, n := range w.cluster.Nodes { // all of them have applied it then
		if _, err := send(ctx, w.client, "GET", n.URL+w.path(name, "", "")+"&consistency=linearizable", "", 200); err != nil {
			return name, err
		}
	}
	w.fixtures[name] = true
	return name, nil
}

// leased fills services of 100 instances each with long leases, once, and returns
// all of them: 10,000, and a tenth of that in a running cluster, whose journal they go
// through.
func (w *world) leased(ctx context.Context) ([]muster.InstanceKey, error) {
	count := w.size(10_000, 500)
	if !w.cluster.owned {
		count = min(count, muster.MaxHeartbeatItems)
	}
	keys := keysOf(w.namespace, "leased", count)
	if w.fixtures["leased"] {
		return keys, nil
	}
	err := w.fill(ctx, keys, long, nil)
	w.fixtures["leased"] = err == nil
	return keys, err
}

// keysOf names count instances in services of 100.
func keysOf(namespace, kind string, count int) []muster.InstanceKey {
	keys := make([]muster.InstanceKey, count)
	for n := range keys {
		keys[n] = muster.InstanceKey{Namespace: namespace, Service: fmt.Sprintf("%s-%d", kind, n/100), ID: fmt.Sprintf("i-%d", n%100)}
	}
	return keys
}

// fill registers instances by batches over all nodes, and calls done, unless nil,
// with each batch when it was acknowledged and how long that took, from several
// goroutines.
func (w *world) fill(ctx context.Context, keys []muster.InstanceKey, ttl string, done func(batch []muster.InstanceKey, took time.Duration)) error {
	w.remember(keys)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(6)
	for first := 0; first < len(keys); first += muster.MaxBatchItems {
		batch := keys[first:min(first+muster.MaxBatchItems, len(keys))]
		url := w.cluster.Nodes[first/muster.MaxBatchItems%len(w.cluster.Nodes)].URL + "/v1/batch/register?timeout=30s"
		group.Go(func() error {
			items := make([]string, len(batch))
			for n, k := range batch {
				items[n] = item(k.Namespace, k.Service, k.ID, first+n, ttl)
			}
			began := time.Now()
			err := w.registerBatch(ctx, url, `{"instances":[`+strings.Join(items, ",")+`]}`)
			if err == nil && done != nil {
				done(batch, time.Since(began))
			}
			return err
		})
	}
	return group.Wait()
}

// registerBatch registers a batch, up to five times: it is safe to repeat, and a fill is
// to outlive a change of leader.
func (w *world) registerBatch(ctx context.Context, url, body string) error {
	for tries := 1; ; tries++ {
		text, err := send(ctx, w.client, "POST", url, body, 200)
		if err == nil && strings.Contains(text, `"error"`) {
			err = fmt.Errorf("a batch was not registered: %.300s", text)
		}
		if err == nil || tries == 5 || ctx.Err() != nil {
			return err
		}
		w.repeated.Add(1)
		if err := wait(ctx, time.Duration(tries)*100*time.Millisecond); err != nil {
			return err
		}
	}
}
