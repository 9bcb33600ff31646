package watch_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/watch"
)

// randomLog is a log over a few services: changes, batches, entries without
// events, services that are forgotten, and restores.
func randomLog(rng *rand.Rand, length int) []logEntry {
	log := make([]logEntry, length)
	for n := range log {
		log[n].raft = uint64(n + 1)
		if rng.IntN(400) == 0 {
			log[n].ops = []op{{restore: true}}
			continue
		}
		for range rng.IntN(4) {
			// A few services take most of it; "quiet" hardly ever changes.
			o := op{service: fmt.Sprint("s", min(rng.IntN(8), rng.IntN(8))), id: fmt.Sprint("i", rng.IntN(3)), version: fmt.Sprint("v", n)}
			switch p := rng.IntN(100); {
			case p < 35:
				o.version = ""
			case p < 38:
				o.forget = true
			case p < 39:
				o.service = "quiet"
			}
			log[n].ops = append(log[n].ops, o)
		}
	}
	return log
}

func randomSpec(rng *rand.Rand) watch.Spec {
	one := func() string { return fmt.Sprint("s", rng.IntN(8)) }
	switch rng.IntN(6) {
	case 0:
		return watch.Spec{}
	case 1:
		return watch.Spec{Prefix: "s"}
	case 2:
		return watch.Spec{Prefix: "quiet"}
	case 3:
		set := map[string]bool{one(): true, one(): true, one(): true, "quiet": true}
		return watch.Spec{Services: slices.Collect(maps.Keys(set))}
	default:
		return services(one())
	}
}

// feed applies the log to a replica in batches of any size, sometimes leaving out
// a part of it as the installation of a snapshot does. Ticks are the messages
// that watchers took; it does not run too far ahead of them.
func feed(ctx context.Context, rng *rand.Rand, r *replica, log []logEntry, ticks <-chan struct{}) {
	ahead := newReplica() // what r is to be next
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for len(log) > 0 && ctx.Err() == nil {
		n := min(1+rng.IntN(8), len(log))
		if rng.IntN(80) == 0 {
			n = min(1+rng.IntN(60), len(log))
			ahead.apply(log[:n]...)
			r.install(ahead, ahead.Index(), maps.Clone(ahead.views), ahead.Floor())
		} else {
			ahead.apply(log[:n]...)
			r.apply(log[:n]...)
		}
		log = log[n:]
		for range rng.IntN(12) {
			timer.Reset(200 * time.Microsecond)
			select {
			case <-ticks:
			case <-timer.C:
			}
		}
	}
}

// client is one watcher that moves between nodes, at times starts afresh and at
// times does not read for a while.
type client struct {
	rng   *rand.Rand
	spec  watch.Spec
	check *checker
	nodes []*bench
	ticks chan<- struct{}
	moves int
}

func (c *client) run(ctx context.Context) error {
	for !c.check.done() {
		if err := c.watch(ctx, c.nodes[c.rng.IntN(len(c.nodes))]); err != nil {
			return fmt.Errorf("watching %+v: %w", c.spec, err)
		}
		c.moves++
	}
	return nil
}

// watch follows one stream for a while.
func (c *client) watch(ctx context.Context, node *bench) error {
	afresh := !c.check.known || c.rng.IntN(20) == 0
	c.check.reconnect(afresh)
	spec := c.spec
	if !afresh {
		spec.From = &c.check.index
	}
	s, err := node.hub.Subscribe(ctx, spec)
	if err != nil {
		return err
	}
	defer s.Close()
	for n := 1 + c.rng.IntN(300); n > 0 && !c.check.done(); n-- {
		if c.rng.IntN(100) == 0 { // not reading
			for until := node.r.Index() + uint64(c.rng.IntN(60)); node.r.Index() < until && !node.done() && ctx.Err() == nil; {
				runtime.Gosched()
			}
		}
		m, err := s.Next(ctx)
		if err != nil {
			return fmt.Errorf("at %d, with the node at %d: %w", c.check.index, node.r.Index(), err)
		}
		if err := c.check.take(m); err != nil {
			return err
		}
		select {
		case c.ticks <- struct{}{}:
		default:
		}
	}
	return nil
}

// TestStreamsAgreeWithTheLog has clients follow a random log on nodes that apply
// it at different paces: whatever they are told is ordered, unique, without gap
// and equal to the log, across nodes, restores, snapshots and overtaken cursors.
func TestStreamsAgreeWithTheLog(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { agree(t, seed, 1500, 24) })
	}
}

func agree(t *testing.T, seed uint64, length, watchers int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	log := randomLog(rng, length)
	h := record(log)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticks := make(chan struct{}, watchers)
	var nodes []*bench
	var feeders sync.WaitGroup
	for n, most := range []int{12, 64, 0} {
		r := newReplica()
		r.shuffle = true
		r.confirmed.Store(uint64(length))
		node := newBenchOn(t, watch.Config{MaxEvents: most, MinWakeInterval: time.Duration(n+1) * 200 * time.Microsecond}, r)
		nodes = append(nodes, node)
		fed := rand.New(rand.NewPCG(seed, uint64(100+n)))
		feeders.Go(func() { feed(ctx, fed, r, log, ticks) })
		node.done = func() bool { _, at := muster.SplitIndex(r.Index()); return at == uint64(length) }
	}
	counts := map[watch.Kind]int{}
	moves := 0
	var mu sync.Mutex // guards counts, moves
	var failed atomic.Bool
	var clients sync.WaitGroup
	for n := range watchers {
		own := rand.New(rand.NewPCG(seed, uint64(1000+n)))
		spec := randomSpec(own)
		c := &client{rng: own, spec: spec, check: newChecker(h, spec), nodes: nodes, ticks: ticks}
		clients.Go(func() {
			if err := c.run(ctx); err != nil && !failed.Swap(true) {
				t.Error(err)
				cancel()
			}
			mu.Lock()
			defer mu.Unlock()
			moves += c.moves
			for k, n := range c.check.counts {
				counts[k] += n
			}
		})
	}
	clients.Wait()
	feeders.Wait()
	t.Logf("%v in %d streams", counts, moves)
	if counts[watch.KindChange] < length || counts[watch.KindResync] < watchers || moves < watchers {
		t.Errorf("%v in %d streams: too little to prove anything", counts, moves)
	}
}
