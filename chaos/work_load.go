package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Load is the clients of a run. Its fields are set before Run and not changed.
type Load struct {
	// URLs are the API of the nodes, in their order.
	URLs    []string
	History *History
	Seed    uint64

	board    board
	watchers []*watcher
	keepers  []*client // whoever reads the journals, by node
	read     []uint64  // up to where each of them has
}

const (
	registrars   = 5                // clients of services that only they change
	registerRate = 8                // requests a second of each
	owners       = 24               // instances that are kept alive one by one
	edges        = 2                // instances whose owners are late
	fleets       = 2                // clients that keep many alive by one request
	fleetSize    = 20               // instances of each
	lives        = 25 * time.Second // for how long a service is written to
	rushEvery    = 5 * time.Second  // how often, and for how long, the registrars hurry
	rush         = 600 * time.Millisecond
	journalEvery = 700 * time.Millisecond
)

// MinRate is the number of attempts a second, all clients together, under which a run
// says nothing.
const MinRate = 20

// Run is the load, until ctx ends. It returns what the harness itself could not do;
// what the registry refuses is in the history.
func (l *Load) Run(ctx context.Context) error {
	if len(l.URLs) == 0 || l.History == nil {
		return errors.New("a load needs nodes and a history")
	}
	l.prepare()
	var all sync.WaitGroup
	start := func(name string, fn func(context.Context, *client)) {
		all.Go(func() {
			c := l.newClient(name)
			defer c.close()
			fn(ctx, c)
		})
	}
	for n := range registrars {
		start(fmt.Sprintf("reg%d", n), l.registrar)
	}
	for n := range l.URLs {
		start(fmt.Sprintf("pulse%d", n), func(ctx context.Context, c *client) { l.pulse(ctx, c, n) })
		all.Go(func() { l.readJournal(ctx, n) })
	}
	for n := range owners {
		start(fmt.Sprintf("own%d", n), func(ctx context.Context, c *client) { l.owner(ctx, c, n) })
	}
	for n := range edges {
		start(fmt.Sprintf("edge%d", n), func(ctx context.Context, c *client) { l.edge(ctx, c, n) })
	}
	for n := range fleets {
		start(fmt.Sprintf("fleet%d", n), func(ctx context.Context, c *client) { l.fleet(ctx, c, n) })
	}
	for _, w := range l.watchers {
		all.Go(func() { w.run(ctx, func() bool { return false }) })
	}
	all.Wait()
	for _, w := range l.watchers {
		if w.err != nil {
			return fmt.Errorf("watcher %s: %w", w.c.name, w.err)
		}
	}
	return nil
}

// prepare makes what Run and Final share.
func (l *Load) prepare() {
	if l.watchers != nil {
		return
	}
	for n, s := range []Select{
		{}, {}, {Prefix: "reg-a-"}, {Prefix: "own-"}, {Services: []string{"own-0", "fleet-1", "never"}}, {Services: []string{"fleet-0"}},
	} {
		l.watchers = append(l.watchers, &watcher{c: l.newClient(fmt.Sprintf("watch%d", n)), sel: s})
	}
	for n, s := range []string{"own-1", "fleet-0"} {
		l.watchers = append(l.watchers, &watcher{c: l.newClient(fmt.Sprintf("poll%d", n)), sel: Select{Services: []string{s}}, polls: true})
	}
	for n := range l.URLs {
		l.keepers = append(l.keepers, l.newClient(fmt.Sprintf("journal%d", n)))
	}
	l.read = make([]uint64, len(l.URLs))
}

// board is what the registrars tell each other: what was last seen of an instance. It
// only makes their requests more interesting.
type board struct {
	mu    sync.Mutex
	cells map[string]Cell // guarded by mu
}

func (b *board) note(service string, c Cell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cells == nil || len(b.cells) > 1000 {
		b.cells = map[string]Cell{}
	}
	b.cells[service+"/"+c.ID] = c
}

func (b *board) last(service, id string) (Cell, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.cells[service+"/"+id]
	return c, ok
}
