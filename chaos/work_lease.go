package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// The leases of the owners and the fleets are short. Most of the time they are kept
// alive; now and then an owner falls silent, or deregisters.

var ownerTTLs = []time.Duration{2 * time.Second, 3 * time.Second, 5 * time.Second}

const fleetTTL = 4 * time.Second

// owner keeps one instance alive, in its own ways.
func (l *Load) owner(ctx context.Context, c *client, n int) {
	ttl := ownerTTLs[n%len(ownerTTLs)]
	service, id := fmt.Sprintf("own-%d", n%3), fmt.Sprintf("o%d", n)
	one := Record{TTL: ttl.Milliseconds()}
	if !pause(ctx, c.about(time.Second)) {
		return
	}
	for ctx.Err() == nil {
		one.Value, one.Same = c.op(), false
		if !c.keepRegistering(ctx, service, id, one) {
			return
		}
		one.Same = true
		for beats := 3 + c.rnd.IntN(30); beats > 0 && pause(ctx, c.about(ttl/4)); beats-- {
			if c.rnd.IntN(12) == 0 {
				c.register(ctx, service, id, one) // the same again renews, too
			} else if c.beat(ctx, service, id) {
				break // it is gone, as it is told
			}
		}
		switch c.rnd.IntN(4) {
		case 0, 1: // falls silent, until it has surely run out
			if !pause(ctx, ttl+2*time.Second+c.about(2*time.Second)) {
				return
			}
		case 2: // goes as it should, and tries whether that is known
			if c.deregister(ctx, service, id, 0).Outcome == OK {
				c.beat(ctx, service, id)
			}
		default: // begins anew, as a process does that was restarted
		}
	}
}

// edge speaks up just when its lease runs out, so that its registration or heartbeat and
// the decision to end it meet.
func (l *Load) edge(ctx context.Context, c *client, n int) {
	service, id := "own-0", fmt.Sprintf("e%d", n)
	one := Record{TTL: time.Second.Milliseconds()}
	for ctx.Err() == nil {
		one.Value, one.Same = c.op(), false
		if !c.keepRegistering(ctx, service, id, one) {
			return
		}
		one.Same = true
		for gone := false; !gone && pause(ctx, time.Second+time.Duration(c.rnd.IntN(120)-5)*time.Millisecond); {
			if c.rnd.IntN(2) == 0 {
				gone = c.beat(ctx, service, id)
			} else {
				c.register(ctx, service, id, one)
			}
		}
	}
}

// keepRegistering tries until the instance is registered; false: ctx ended.
func (c *client) keepRegistering(ctx context.Context, service, id string, r Record) bool {
	r.Kind, r.Service, r.Instance = KindRegister, service, id
	for ctx.Err() == nil {
		try := r
		try.Node = c.node()
		c.registerAt(ctx, &try, 0)
		if try.Outcome == OK {
			return true
		}
		r.Same = true // the one before may have happened
		if !pause(ctx, c.about(200*time.Millisecond)) {
			break
		}
	}
	return false
}

// beat sends a heartbeat; whether the instance is gone is what it reports.
func (c *client) beat(ctx context.Context, service, id string) bool {
	name := service + "/" + id
	r := Record{Kind: KindBeat, Node: c.node(), Beat: []string{name}}
	c.try(ctx, &r, request{
		method: http.MethodPut, path: instancePath(service, id) + "/heartbeat", query: []string{"timeout=1s"}, within: 1500 * time.Millisecond,
	})
	if r.Code == "unknown_instance" {
		r.Outcome, r.Gone = OK, []string{name}
	}
	c.load.History.Add(&r)
	return len(r.Gone) > 0
}

// fleet keeps many instances alive by one heartbeat for all of them.
func (l *Load) fleet(ctx context.Context, c *client, n int) {
	service := fmt.Sprintf("fleet-%d", n)
	registered := make([]bool, fleetSize)
	silent := make([]time.Time, fleetSize) // until when
	for ; ctx.Err() == nil; pause(ctx, c.about(fleetTTL/4)) {
		var names []string
		for i := range fleetSize {
			id := fmt.Sprintf("f%d", i)
			switch {
			case time.Now().Before(silent[i]):
				continue
			case !registered[i]:
				r := Record{Kind: KindRegister, Node: c.node(), Service: service, Instance: id, TTL: fleetTTL.Milliseconds(), Value: c.op()}
				c.registerAt(ctx, &r, 0)
				registered[i] = r.Outcome == OK
			}
			if registered[i] {
				names = append(names, id)
			}
		}
		if len(names) == 0 {
			continue
		}
		for _, id := range c.beatMany(ctx, service, names) {
			registered[id] = false
		}
		if c.rnd.IntN(8) == 0 {
			i := c.rnd.IntN(fleetSize)
			silent[i], registered[i] = time.Now().Add(fleetTTL+3*time.Second), false
		}
	}
}

// beatMany answers the numbers of those that are gone.
func (c *client) beatMany(ctx context.Context, service string, ids []string) (gone []int) {
	type name struct {
		Namespace string `json:"namespace"`
		Service   string `json:"service"`
		ID        string `json:"id"`
	}
	var all struct {
		Instances []name `json:"instances"`
	}
	r := Record{Kind: KindBeat, Node: c.node()}
	for _, id := range ids {
		all.Instances = append(all.Instances, name{"default", service, id})
		r.Beat = append(r.Beat, service+"/"+id)
	}
	b, _ := json.Marshal(all) // strings: cannot fail
	a := c.try(ctx, &r, request{
		method: http.MethodPost, path: "/v1/heartbeats", query: []string{"timeout=1s"}, within: 1500 * time.Millisecond, body: string(b),
	})
	var got struct {
		Renewed int
		Unknown []string
	}
	if r.Outcome == OK {
		if err := json.Unmarshal(a.body, &got); err != nil || got.Renewed+len(got.Unknown) != len(ids) {
			r.Outcome, r.Error = Unknown, "not for all: "+clipped(a.body)
		}
	}
	for _, key := range got.Unknown {
		var i int
		if _, err := fmt.Sscanf(key, "default/"+service+"/f%d", &i); err != nil {
			r.Outcome, r.Error = Unknown, "an unknown that was not named: "+key
			break
		}
		r.Gone = append(r.Gone, fmt.Sprintf("%s/f%d", service, i))
		gone = append(gone, i)
	}
	c.load.History.Add(&r)
	return gone
}
