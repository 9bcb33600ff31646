package grpcserver

import (
	"sync"

	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/muster-registry/muster/client"
)

const (
	serving    = grpc_health_v1.HealthCheckResponse_SERVING
	notServing = grpc_health_v1.HealthCheckResponse_NOT_SERVING
)

// opinions is what is answered for each service: what the program says of it, while
// the session lets anything be served at all.
type opinions struct {
	told *health.Server // answers, and wakes who watches

	mu   sync.Mutex
	open bool            // guarded by mu: as far as the session goes
	own  map[string]bool // guarded by mu: what the program says, by service
}

func newOpinions() *opinions {
	o := &opinions{told: health.NewServer(), own: map[string]bool{}}
	o.set("", true)
	return o
}

// know takes in a service that the program has not spoken of.
func (o *opinions) know(service string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.own[service]; !known {
		o.own[service] = true
		o.tell(service)
	}
}

// set takes in what the program says of a service.
func (o *opinions) set(service string, well bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.own[service] = well
	o.tell(service)
}

// turn takes in what the session says.
func (o *opinions) turn(open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == open {
		return
	}
	o.open = open
	for service := range o.own {
		o.tell(service)
	}
}

// tell is called with mu held. The health server never waits for who watches it.
func (o *opinions) tell(service string) {
	status := notServing
	if o.open && o.own[service] {
		status = serving
	}
	o.told.SetServingStatus(service, status)
}

// isOpen reports whether a server may serve whose session is in a state.
func isOpen(state client.State, onlyRegistered bool) bool {
	switch state {
	case client.StateRegistered:
		return true
	case client.StateRegistering, client.StateLost:
		return !onlyRegistered
	}
	return false
}
