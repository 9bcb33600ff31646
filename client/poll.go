package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

// pollWait is how long a long poll is held: a node that accepts and never answers
// is found after it.
const pollWait = 15 * time.Second

// poll follows the watched services by long polls until the time has come to ask
// for a stream again, ctx ends or others are watched.
func (f *feed) poll(ctx context.Context, until time.Time) {
	watched := f.watched()
	ctx, done := f.opened(ctx, watched)
	defer done()
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for _, e := range watched {
		all.Go(func() { f.pollOne(ctx, e) })
	}
}

func (f *feed) pollOne(ctx context.Context, e *entry) {
	pauses := delays(feedFirst, feedMost)
	index, _ := e.has()
	for ctx.Err() == nil {
		var info muster.ReadInfo
		attempt, cancel := context.WithTimeout(ctx, pollWait+pollWait/16+f.c.cfg.Timeout)
		v, err := f.c.Service(attempt, e.key.Service, In(f.namespace), After(index, pollWait), Info(&info))
		cancel()
		if err == nil {
			v, err = checked(v, e.key)
		}
		switch {
		case err == nil:
			e.full(v, index == 0)
			index = v.Index
		case isUnknown(err):
			e.unknown(max(info.Index, index), index == 0)
			index = max(info.Index, index, 1)
		case ctx.Err() != nil:
			return
		case errors.Is(err, muster.CodeCursorGone):
			index = 0
			continue
		default:
			f.away(err)
			f.recall()
			rest(ctx, nil, min(pauses.NextBackOff(), feedMost))
			continue
		}
		pauses.Reset()
		f.connected(0)
	}
}
