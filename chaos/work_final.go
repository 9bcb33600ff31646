package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// finalPatience is how long one step of the end may take on a cluster that is whole.
const finalPatience = 30 * time.Second

// marks are the last writes: every watcher carries one of these services.
var marks = []string{"reg-a-last", "own-0", "own-1", "fleet-0", "fleet-1"}

// Final is called after Run has returned and every fault was healed. It ends all
// leases, makes the last writes, has the watchers come to them, and reads the whole
// state from every node. An error means that the cluster is not whole.
func (l *Load) Final(ctx context.Context) error {
	l.prepare()
	c := l.newClient("final")
	defer c.close()
	if err := l.clearLeases(ctx, c); err != nil {
		return err
	}
	last := map[string]uint64{}
	for _, service := range marks {
		err := l.insist(ctx, "the last write to "+service, func(ctx context.Context) bool {
			r := Record{Kind: KindRegister, Node: c.node(), Service: service, Instance: "last", Value: c.op()}
			c.registerAt(ctx, &r, 0)
			last[service] = r.Index
			return r.Outcome == OK
		})
		if err != nil {
			return err
		}
	}
	end := last[marks[len(marks)-1]]
	for n := range l.URLs {
		if err := l.insist(ctx, fmt.Sprintf("node %d to give its journal", n), func(ctx context.Context) bool {
			return l.pageJournal(ctx, n) && l.read[n] >= end
		}); err != nil {
			return err
		}
		if err := l.insist(ctx, fmt.Sprintf("node %d to give its state", n), func(ctx context.Context) bool {
			return l.readAll(ctx, c, n, end)
		}); err != nil {
			return err
		}
	}
	return l.lead(ctx, last)
}

// insist repeats an attempt until it succeeds.
func (l *Load) insist(ctx context.Context, what string, try func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, finalPatience)
	defer cancel()
	for !try(ctx) {
		if !pause(ctx, 100*time.Millisecond) {
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// clearLeases deregisters all that hangs on a lease, so that the state rests.
func (l *Load) clearLeases(ctx context.Context, c *client) error {
	var services []string
	for n := range len(ownerTTLs) {
		services = append(services, fmt.Sprintf("own-%d", n))
	}
	for n := range fleets {
		services = append(services, fmt.Sprintf("fleet-%d", n))
	}
	for _, service := range services {
		if err := l.insist(ctx, "the leases of "+service+" to end", func(ctx context.Context) bool {
			r := c.readService(ctx, Record{Service: service, Linearizable: true})
			left := r.Outcome != OK
			for _, cell := range r.Cells {
				if cell.TTL > 0 {
					c.deregister(ctx, service, cell.ID, 0)
					left = true
				}
			}
			return !left
		}); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads what one node has at end: its list of services and every view.
func (l *Load) readAll(ctx context.Context, c *client, node int, end uint64) bool {
	at := fmt.Sprintf("min_index=%d", end)
	list := Record{Kind: KindFinal, Node: node, MinIndex: end}
	a := c.try(ctx, &list, request{method: http.MethodGet, path: "/v1/services", query: []string{at}})
	var got struct {
		Services []struct {
			Service   string
			Instances int
			Index     uint64
		}
	}
	if list.Outcome != OK || json.Unmarshal(a.body, &got) != nil {
		l.History.Add(&list)
		return false
	}
	var views []Record
	for n, s := range got.Services {
		list.Cells = append(list.Cells, Cell{ID: s.Service, Modify: s.Index})
		r := Record{Kind: KindFinal, Node: node, Service: s.Service, MinIndex: end, Linearizable: n%8 == 0}
		a := c.try(ctx, &r, request{method: http.MethodGet, path: "/v1/services/" + s.Service, query: readQuery(&r)})
		c.noteView(&r, a)
		if r.Outcome != OK {
			l.History.Add(&r)
			return false
		}
		views = append(views, r)
	}
	l.History.Add(&list)
	for n := range views {
		l.History.Add(&views[n])
	}
	return true
}

// lead has every watcher go on until it is at the last write that it carries.
func (l *Load) lead(ctx context.Context, last map[string]uint64) error {
	ctx, cancel := context.WithTimeout(ctx, finalPatience)
	defer cancel()
	var all sync.WaitGroup
	for _, w := range l.watchers {
		need := uint64(0)
		for service, index := range last {
			if w.sel.match(service) {
				need = max(need, index)
			}
		}
		all.Go(func() {
			w.run(ctx, func() bool { return w.cursor >= need })
			r := Record{Kind: KindReached, Client: w.c.name, Wall: time.Now().UnixNano(), Outcome: OK, Index: w.cursor, After: need}
			r.Call = l.History.Since(time.Now())
			r.Return = r.Call
			l.History.Add(&r)
			w.c.close()
		})
	}
	all.Wait()
	for _, w := range l.watchers {
		if w.err != nil {
			return fmt.Errorf("watcher %s: %w", w.c.name, w.err)
		}
	}
	return nil
}

// match reports whether a stream carries a service.
func (s *Select) match(service string) bool {
	if len(s.Services) > 0 {
		for _, name := range s.Services {
			if name == service {
				return true
			}
		}
		return false
	}
	return strings.HasPrefix(service, s.Prefix)
}
