package balancer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// started picks one that counts as in flight.
func started(t testing.TB, b *balancer.Balancer, now time.Time, v *muster.View) balancer.Choice {
	t.Helper()
	c, err := b.Start(now, &balancer.Request{View: v})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ticket(t testing.TB, b *balancer.Balancer, now time.Time, v *muster.View, ttl time.Duration) string {
	t.Helper()
	id, err := b.Ticket(now, started(t, b, now, v), ttl)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTicket(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{Node: "8f3a"})
	v := service(1)
	id := ticket(t, b, epoch, v, 0)
	if node := balancer.TicketNode(id); node != "8f3a" {
		t.Errorf("ticket %s is of node %q", id, node)
	}
	if other := ticket(t, b, epoch, v, 0); other == id || len(other) < len("8f3a.")+20 {
		t.Errorf("tickets %s and %s can be guessed", id, other)
	}
	if n := b.Stats(epoch, v).InFlight; n != 2 {
		t.Errorf("%d in flight, want 2", n)
	}
	now := epoch.Add(29 * time.Second)
	if err := b.Redeem(now, id, balancer.Outcome{Failed: true, Latency: 12 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	i := b.Stats(now, v).Instances[0]
	if i.InFlight != 1 || i.Failures != 1 || time.Duration(i.Latency).Round(10*time.Microsecond) != 12*time.Millisecond {
		t.Errorf("after the report: %+v", i)
	}
	for _, bad := range []string{id, "8f3a.NOSUCH", "", "."} {
		if err := b.Redeem(now, bad, balancer.Outcome{}); muster.CodeOf(err) != muster.CodeUnknownTicket {
			t.Errorf("%q: got %v, want unknown_ticket", bad, err)
		}
	}
}

func TestTicketNode(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"n1.ABC": "n1", "a.b.ABC": "a.b", "ABC": "", ".ABC": "", "": ""} {
		if got := balancer.TicketNode(id); got != want {
			t.Errorf("%q: got %q, want %q", id, got, want)
		}
	}
	b := newBalancer(t, balancer.Config{})
	if id := ticket(t, b, epoch, service(1), 0); strings.Contains(id, ".") {
		t.Errorf("without a node's id: got %s", id)
	}
}

// TestTicketsRunOut: when their time is over, and not before, whether somebody
// reports, picks or asks for another.
func TestTicketsRunOut(t *testing.T) {
	t.Parallel()
	v := service(1)
	for name, visit := range map[string]func(b *balancer.Balancer, now time.Time, last string){
		"pick":   func(b *balancer.Balancer, now time.Time, _ string) { pick(t, b, now, &balancer.Request{View: v}) },
		"report": func(b *balancer.Balancer, now time.Time, _ string) { _ = b.Redeem(now, "none", balancer.Outcome{}) },
		"ticket": func(b *balancer.Balancer, now time.Time, _ string) {
			b.Drop(started(t, b, now, v))
			ticket(t, b, now, v, time.Millisecond)
			pick(t, b, now.Add(time.Millisecond), &balancer.Request{View: v})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBalancer(t, balancer.Config{})
			var ids []string
			for _, s := range []int{20, 5, 600, 10, 30} {
				ids = append(ids, ticket(t, b, epoch, v, time.Duration(s)*time.Second))
			}
			for _, c := range []struct {
				after int
				left  int64
			}{{4, 5}, {5, 4}, {19, 3}, {20, 2}, {599, 1}, {600, 0}} {
				now := epoch.Add(time.Duration(c.after)*time.Second + 500*time.Millisecond)
				visit(b, now, ids[0])
				if n := b.Stats(now, v).InFlight; n != c.left {
					t.Errorf("after %d s %d are in flight, want %d", c.after, n, c.left)
				}
			}
			i := b.Stats(epoch, v).Instances[0]
			if i.Failures != 0 || i.Successes != 0 {
				t.Errorf("a ticket nobody reports says nothing, got %+v", i)
			}
			if err := b.Redeem(epoch, ids[0], balancer.Outcome{}); muster.CodeOf(err) != muster.CodeUnknownTicket {
				t.Errorf("the ticket that ran out: got %v", err)
			}
		})
	}
}

func TestTicketTTL(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{})
	v := service(1)
	for _, ttl := range []time.Duration{-1, balancer.MaxTicketTTL + 1} {
		c := started(t, b, epoch, v)
		if _, err := b.Ticket(epoch, c, ttl); muster.CodeOf(err) != muster.CodeInvalidDuration {
			t.Errorf("%s: got %v, want invalid_duration", ttl, err)
		}
		b.Drop(c) // it is still the caller's
	}
	if n := b.Stats(epoch, v).InFlight; n != 0 {
		t.Errorf("%d in flight", n)
	}
	if _, err := b.Ticket(epoch, pick(t, b, epoch, &balancer.Request{View: v}), 0); err == nil {
		t.Error("a choice that does not count got a ticket")
	}
}

// TestTicketsAreBounded: beyond the bound, the one that would run out first goes.
func TestTicketsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBalancer(t, balancer.Config{MaxTickets: 3})
	v := service(1)
	short := ticket(t, b, epoch, v, time.Second)
	long := ticket(t, b, epoch, v, time.Minute)
	for range 2 {
		ticket(t, b, epoch, v, 10*time.Second)
	}
	if n := b.Stats(epoch, v).InFlight; n != 3 {
		t.Errorf("%d in flight, want 3", n)
	}
	if err := b.Redeem(epoch, short, balancer.Outcome{}); muster.CodeOf(err) != muster.CodeUnknownTicket {
		t.Errorf("the shortest: got %v", err)
	}
	if err := b.Redeem(epoch, long, balancer.Outcome{}); err != nil {
		t.Errorf("the longest: got %v", err)
	}
}
