package client

import (
	"sync"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// PickBy says which instance is wanted. The zero PickBy goes by the settings of the
// service and prefers Config.Zone.
type PickBy struct {
	// Strategy is how; nil is the service's own.
	Strategy balancer.Strategy
	// Key is what the hash strategies go by.
	Key string
	// Zone is preferred; "" is Config.Zone.
	Zone string
	// Where narrows whom to choose from, by fields and by an expression
	// (Query.Filter); nil does not.
	Where *muster.Query
	// Port is the name of one of the instance's ports: only instances that have it are
	// chosen, and calls go there. "" is their Port.
	Port string
}

// Pick chooses an instance from the view, in memory. What became of it may be told
// by Report. The error is unreachable while nothing is known of the service,
// unknown_service, no_instance, or what is wrong with by.
func (w *Watch) Pick(by PickBy) (balancer.Choice, error) { return w.pick(&by, nil, false) }

// Start is Pick, and counts the choice as in flight until it is given to Done or
// Drop, exactly once.
func (w *Watch) Start(by PickBy) (balancer.Choice, error) { return w.pick(&by, nil, true) }

// Done ends a choice of Start and tells what became of it: that is what
// least_request, ewma and the circuit breaker of each instance go by.
func (w *Watch) Done(choice balancer.Choice, o balancer.Outcome) {
	w.feed.c.balancer.Done(time.Now(), choice, o)
}

// Drop ends a choice of Start of which nothing can be said.
func (w *Watch) Drop(choice balancer.Choice) { w.feed.c.balancer.Drop(choice) }

// Report tells what became of requests to an instance that was chosen by Pick.
func (w *Watch) Report(id string, o balancer.Outcomes) error {
	v, err := w.pickable()
	if err != nil {
		return err
	}
	return w.feed.c.balancer.Report(time.Now(), v, id, o)
}

// Stats is what this client has learnt of the instances, for people.
func (w *Watch) Stats() (balancer.Stats, error) {
	v, err := w.pickable()
	if err != nil {
		return balancer.Stats{}, err
	}
	return w.feed.c.balancer.Stats(time.Now(), v), nil
}

// pickable is the view, if the registry knows of the service.
func (w *Watch) pickable() (*muster.View, error) {
	v := w.View()
	switch {
	case v == nil:
		return nil, muster.Errorf(CodeUnreachable, "nothing is known of service %s yet", w.entry.key).WithCause(w.feed.status().Err)
	case len(v.Instances) == 0 && v.EmptyReason == "":
		return nil, muster.Errorf(muster.CodeUnknownService, "no service is registered as %s in namespace %s", v.Service, v.Namespace).
			WithHint("check the name; the registry lists all services at /v1/services")
	}
	return v, nil
}

// requests are kept for picks: the balancer only reads one while it picks, but the
// compiler cannot know that.
var requests = sync.Pool{New: func() any { return new(balancer.Request) }}

// pick chooses one that is not among but, unless there is no other.
func (w *Watch) pick(by *PickBy, but []string, count bool) (balancer.Choice, error) {
	v, err := w.pickable()
	if err != nil {
		return balancer.Choice{}, err
	}
	if v, err = w.feed.c.narrowed(v, by); err != nil {
		return balancer.Choice{}, err
	}
	c := w.feed.c
	r := requests.Get().(*balancer.Request)
	defer requests.Put(r)
	*r = balancer.Request{View: v, Strategy: by.Strategy, Key: by.Key, Zone: by.Zone}
	if r.Zone == "" {
		r.Zone = c.cfg.Zone
	}
	now := time.Now()
	if !count {
		return c.balancer.Pick(now, r)
	}
	choice, err := c.balancer.Start(now, r)
	if err != nil || !contains(but, choice.Instance.ID) {
		return choice, err
	}
	return c.another(now, r, choice, but)
}

// another is a choice in the place of one that was tried already.
func (c *Client) another(now time.Time, r *balancer.Request, tried balancer.Choice, but []string) (balancer.Choice, error) {
	c.balancer.Drop(tried)
	choice, err := c.balancer.Start(now, r) // most strategies come to another by themselves
	if err != nil || !contains(but, choice.Instance.ID) {
		return choice, err
	}
	c.balancer.Drop(choice)
	whole := r.View
	r.View = whole.Filtered(func(i *muster.Instance) bool { return !contains(but, i.ID) })
	if choice, err = c.balancer.Start(now, r); err == nil {
		return choice, nil
	}
	r.View = whole
	return c.balancer.Start(now, r)
}

func contains(ids []string, id string) bool {
	for _, s := range ids {
		if s == id {
			return true
		}
	}
	return false
}
