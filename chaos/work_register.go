package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Services that only the registrars change: nothing of them ever runs out, so that
// every change has a request of ours behind it. A service is written to for a while
// and then left; the history of each stays short, and what was left has to stay as it
// was.

var registerIDs = []string{"a", "b", "c", "d"}

// generation is the number of the services that are written to now.
func (l *Load) generation() int { return int(time.Since(l.History.start) / lives) }

// between is the time from one request of a registrar to the next. Now and then all of
// them hurry, so that many requests meet at one service.
func (l *Load) between(c *client) time.Duration {
	if time.Since(l.History.start)%rushEvery < rush {
		return c.about(rush / 100)
	}
	return c.about(time.Second / registerRate)
}

// registrar registers, deregisters and reads.
func (l *Load) registrar(ctx context.Context, c *client) {
	for pause(ctx, l.between(c)) {
		service := fmt.Sprintf("reg-%s-%d", []string{"a", "b"}[c.rnd.IntN(2)], l.generation())
		id := registerIDs[c.rnd.IntN(len(registerIDs))]
		last, known := l.board.last(service, id)
		switch n := c.rnd.IntN(100); {
		case n < 26:
			c.register(ctx, service, id, Record{Value: c.op()})
		case n < 34 && known && last.Value != "":
			c.register(ctx, service, id, Record{Value: last.Value, Same: true})
		case n < 42 && known && last.Modify > 0:
			c.register(ctx, service, id, Record{Value: c.op(), Match: last.Modify})
		case n < 46:
			c.register(ctx, service, id, Record{Value: c.op(), Absent: true})
		case n < 55:
			c.deregister(ctx, service, id, 0)
		case n < 58 && known && last.Modify > 0:
			c.deregister(ctx, service, id, last.Modify)
		case n < 62:
			c.registerBatch(ctx, service, c.rnd.Perm(len(registerIDs))[:2+c.rnd.IntN(2)])
		case n < 74:
			c.readService(ctx, Record{Service: service, Linearizable: true})
		case n < 78:
			c.readInstance(ctx, Record{Service: service, Instance: id, Linearizable: true})
		case n < 86:
			c.readService(ctx, Record{Service: service, MinIndex: c.seen})
		case n < 90:
			c.readService(ctx, Record{Service: service, MaxStale: 300})
		case n < 95:
			c.readService(ctx, Record{Service: service})
		default: // what was left, and what comes and goes by itself
			others := []string{"own-0", "fleet-0", fmt.Sprintf("reg-a-%d", c.rnd.IntN(l.generation()+1))}
			c.readService(ctx, Record{Service: others[c.rnd.IntN(len(others))], Linearizable: c.rnd.IntN(2) == 0})
		}
	}
}

// pulse writes to one node all the time, so that it is known when it could be.
func (l *Load) pulse(ctx context.Context, c *client, node int) {
	for pause(ctx, c.about(300*time.Millisecond)) {
		service := fmt.Sprintf("pulse-%d", l.generation())
		r := Record{Kind: KindRegister, Node: node, Service: service, Instance: registerIDs[node%len(registerIDs)], Value: c.op()}
		c.registerAt(ctx, &r, time.Second)
	}
}

func (c *client) register(ctx context.Context, service, id string, r Record) {
	r.Kind, r.Node, r.Service, r.Instance = KindRegister, c.node(), service, id
	c.registerAt(ctx, &r, 0)
}

// registerAt sends a registration; r says of what, where and on which condition.
func (c *client) registerAt(ctx context.Context, r *Record, within time.Duration) {
	r.Op = r.Value
	if r.Same {
		r.Op = c.op()
	}
	q := request{
		method: http.MethodPut, path: instancePath(r.Service, r.Instance), within: within,
		query: []string{"reason=" + r.Op, "timeout=" + tryFor.String()},
		body:  string(body(r.Service, r.Instance, r.Value, r.TTL, false)),
	}
	if within > 0 {
		q.query[1] = "timeout=" + (within * 3 / 4).String()
	}
	if r.Match > 0 {
		q.header = append(q.header, [2]string{"If-Match", fmt.Sprintf(`"%d"`, r.Match)})
	}
	if r.Absent {
		q.header = append(q.header, [2]string{"If-None-Match", "*"})
	}
	a := c.try(ctx, r, q)
	if r.Outcome == OK {
		cell, err := cellOf(a.body)
		if err != nil {
			r.Outcome, r.Error = Unknown, err.Error()
		} else {
			r.Created, r.Changed, r.Cells = r.Status == http.StatusCreated, cell.Modify == r.Index, []Cell{cell}
			c.load.board.note(r.Service, cell)
		}
	}
	c.load.History.Add(r)
}

// registerBatch registers several instances of a service by one request, which makes
// a record of each.
func (c *client) registerBatch(ctx context.Context, service string, which []int) {
	var items []string
	var all []Record
	op := c.op()
	for _, n := range which {
		id := registerIDs[n]
		all = append(all, Record{Kind: KindRegister, Service: service, Instance: id, Value: op, Op: op})
		items = append(items, string(body(service, id, op, 0, true)))
	}
	one := Record{Node: c.node()}
	a := c.try(ctx, &one, request{
		method: http.MethodPost, path: "/v1/batch/register",
		query: []string{"reason=" + op, "timeout=" + tryFor.String()},
		body:  `{"instances":[` + strings.Join(items, ",") + `]}`,
	})
	var got struct {
		Results []struct {
			Index            uint64
			Created, Changed bool
			Error            *struct{ Code string }
		}
	}
	if one.Outcome == OK {
		if err := json.Unmarshal(a.body, &got); err != nil || len(got.Results) != len(all) {
			one.Outcome, one.Error = Unknown, "no results: "+clipped(a.body)
		}
	}
	for n := range all {
		r := &all[n]
		r.Client, r.Node, r.Wall, r.Call, r.Return = one.Client, one.Node, one.Wall, one.Call, one.Return
		r.Outcome, r.Status, r.Code, r.Error = one.Outcome, one.Status, one.Code, one.Error
		if one.Outcome == OK {
			res := got.Results[n]
			r.Index, r.Created, r.Changed = res.Index, res.Created, res.Changed
			if res.Error != nil {
				r.Outcome, r.Code = Fail, res.Error.Code
				if r.Code == "outcome_unknown" || r.Code == "internal" {
					r.Outcome = Unknown
				}
			}
		}
		c.load.History.Add(r)
	}
}

// deregister reports what became of it.
func (c *client) deregister(ctx context.Context, service, id string, match uint64) Record {
	r := Record{Kind: KindDeregister, Node: c.node(), Service: service, Instance: id, Op: c.op(), Match: match}
	q := request{
		method: http.MethodDelete, path: instancePath(service, id),
		query: []string{"reason=" + r.Op, "timeout=" + tryFor.String()},
	}
	if match > 0 {
		q.header = append(q.header, [2]string{"If-Match", fmt.Sprintf(`"%d"`, match)})
	}
	c.try(ctx, &r, q)
	c.load.History.Add(&r)
	return r
}

// readService reads a view; r says how.
func (c *client) readService(ctx context.Context, r Record) Record {
	r.Kind = KindRead
	r.Node = c.node()
	return c.readAt(ctx, r)
}

func (c *client) readAt(ctx context.Context, r Record) Record {
	a := c.try(ctx, &r, request{method: http.MethodGet, path: "/v1/services/" + r.Service, query: readQuery(&r)})
	c.noteView(&r, a)
	for _, cell := range r.Cells {
		c.load.board.note(r.Service, cell)
	}
	c.load.History.Add(&r)
	return r
}

// noteView reads the view of an answer. That nothing is known of a service is an
// answer, too.
func (c *client) noteView(r *Record, a answer) {
	switch {
	case r.Outcome == OK:
		_, index, cells, err := viewOf(a.body)
		if err != nil || index != r.Index {
			r.Outcome, r.Error = Unknown, fmt.Sprintf("a view of %d, said to be of %d: %v", index, r.Index, err)
			return
		}
		r.Cells = cells
	case r.Code == "unknown_service":
		r.Outcome = OK
	}
}

func (c *client) readInstance(ctx context.Context, r Record) {
	r.Kind, r.Node = KindRead, c.node()
	a := c.try(ctx, &r, request{method: http.MethodGet, path: instancePath(r.Service, r.Instance), query: readQuery(&r)})
	switch {
	case r.Outcome == OK:
		cell, err := cellOf(a.body)
		if err != nil {
			r.Outcome, r.Error = Unknown, err.Error()
		}
		r.Cells = []Cell{cell}
	case r.Code == "unknown_service", r.Code == "unknown_instance":
		r.Outcome = OK
	}
	c.load.History.Add(&r)
}

func readQuery(r *Record) []string {
	var q []string
	if r.Linearizable {
		q = append(q, "consistency=linearizable")
	}
	if r.MinIndex > 0 {
		q = append(q, fmt.Sprintf("min_index=%d", r.MinIndex))
	}
	if r.MaxStale > 0 {
		q = append(q, fmt.Sprintf("max_stale=%dms", r.MaxStale))
	}
	if len(q) > 0 {
		q = append(q, "timeout="+tryFor.String())
	}
	return q
}

func instancePath(service, id string) string {
	return "/v1/services/" + service + "/instances/" + id
}

// body is an instance, of which all but its value follows from its name.
func body(service, id, value string, ttlMS int64, named bool) []byte {
	i := map[string]any{"address": "10.9.8.7", "port": 8080, "ttl": "none", "meta": map[string]string{"op": value}}
	if ttlMS > 0 {
		i["ttl"] = (time.Duration(ttlMS) * time.Millisecond).String()
	}
	if named {
		i["service"], i["id"] = service, id
	}
	b, _ := json.Marshal(i) // strings and numbers: cannot fail
	return b
}
