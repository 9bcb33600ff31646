package node

import (
	"context"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/httpapi"
	"github.com/muster-registry/muster/watch"
)

// watchFeed passes what the state machine applied on to the hub. The hub is set
// before anything runs.
type watchFeed struct{ hub *watch.Hub }

// Applied is called on raft's goroutine.
func (f *watchFeed) Applied(c fsm.Changes) {
	b := watch.Batch{Index: c.Index, Reset: c.Reset}
	if len(c.Entries) > 0 {
		b.Entries = make([]watch.Entry, len(c.Entries))
		for n, e := range c.Entries {
			b.Entries[n] = watch.Entry(e)
		}
	}
	f.hub.Applied(b)
}

// slowStaleAfter stands for watch.Config's default where raft takes its time: a
// change of leader is no reason to tell everybody that this node is stale.
const slowStaleAfter = 6 * time.Second

func watchConfig(raftProfile string) watch.Config {
	if cluster.Profile(raftProfile) == cluster.ProfileSlow {
		return watch.Config{StaleAfter: slowStaleAfter}
	}
	return watch.Config{}
}

// watches opens the streams of the HTTP API.
type watches struct{ hub *watch.Hub }

func (w watches) Subscribe(ctx context.Context, q muster.WatchQuery) (httpapi.Stream, error) {
	spec := watch.Spec{Namespace: q.Namespace, Services: q.Services, Prefix: q.Prefix, Cluster: q.Cluster}
	if q.From > 0 {
		spec.From = &q.From
	}
	if q.Lines {
		spec.Format = watch.NDJSON
	}
	s, err := w.hub.Subscribe(ctx, spec)
	if err != nil {
		return nil, err // not s: a Stream that holds a nil pointer is not nil
	}
	return s, nil
}
