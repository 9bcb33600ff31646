package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-registry/muster"
)

// cleanupFor bounds taking so many instances out of a running cluster, also one that
// is without a leader for a while and busy afterwards.
func cleanupFor(instances int) time.Duration {
	return time.Minute + time.Duration(instances)*5*time.Millisecond
}

// cleaners is how many removals are under way at once.
const cleaners = 32

// remember notes what has to be taken out of a running cluster. It is called before
// anything is registered, or at the latest however that ends.
func (w *world) remember(keys []muster.InstanceKey) {
	if w.cluster.owned {
		return
	}
	for _, k := range keys {
		w.keys = append(w.keys, w.path(k.Service, k.ID, ""))
	}
}

// cleanUp takes out of a running cluster what the run has put into it, also when ctx
// has ended. What a node does not do another is asked for, until the time is up; what
// cannot be removed at all keeps nothing else from it. What is left stays in w.keys.
func (w *world) cleanUp(ctx context.Context) error {
	count := len(w.keys)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupFor(count))
	defer cancel()
	clear(w.fixtures)
	unknown, left, first := w.takeOut(ctx, w.keys)
	// A registration that was under way when the load was told to stop may have come
	// after its removal.
	_, again, err := w.takeOut(ctx, unknown)
	left = append(left, again...)
	if first == nil {
		first = err
	}
	w.keys = left
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("%d of the benchmark's %d instances may be left in namespace %s, until their leases of at most %s end: %w",
		len(left), count, w.namespace, long, first)
}

// takeOut removes what lies at these paths. unknown is what the cluster knew nothing
// of, left what it would not remove or had no time for, err the first reason of that.
func (w *world) takeOut(ctx context.Context, paths []string) (unknown, left []string, err error) {
	var mu sync.Mutex
	next := 0
	take := func() (string, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == len(paths) {
			return "", false
		}
		next++
		return paths[next-1], true
	}
	var group errgroup.Group
	for c := range min(cleaners, len(paths)) {
		group.Go(func() error {
			node := c
			for path, ok := take(); ok; path, ok = take() {
				known, why := w.remove(ctx, &node, path)
				mu.Lock()
				switch {
				case why != nil:
					left = append(left, path)
					if err == nil {
						err = why
					}
				case !known:
					unknown = append(unknown, path)
				}
				mu.Unlock()
			}
			return nil
		})
	}
	return unknown, left, errors.Join(group.Wait(), err)
}

// remove sends DELETE for a path to the node of that number, and when it fails to the
// next, which *node is from then on, until ctx ends. known is whether there was, or had
// been, such a thing. An answer that another node, or later, would give too is final.
func (w *world) remove(ctx context.Context, node *int, path string) (known bool, err error) {
	for try := 1; ; try++ {
		if ctx.Err() != nil {
			return false, errors.Join(context.Cause(ctx), err)
		}
		url := w.cluster.Nodes[*node%len(w.cluster.Nodes)].URL + path
		_, err = send(ctx, w.client, "DELETE", url, "", http.StatusNoContent)
		if err == nil {
			return true, nil
		}
		if no := (*refusal)(nil); errors.As(err, &no) {
			if no.status == http.StatusNotFound {
				return false, nil
			}
			passing := []int{http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests}
			if no.status < 500 && !slices.Contains(passing, no.status) {
				return false, err
			}
		}
		*node++
		if wait(ctx, min(time.Duration(try)*50*time.Millisecond, time.Second)) != nil {
			return false, errors.Join(context.Cause(ctx), err)
		}
	}
}
