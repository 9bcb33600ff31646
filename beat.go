package muster

// Beat is the answer to a heartbeat.
type Beat struct {
	TTL TTL `json:"ttl"`
	// Next is when to beat again: about a third of the TTL, jittered, and longer
	// while the registry is under load.
	Next Duration `json:"next"`
}

// Beats is the answer to a batch of heartbeats.
type Beats struct {
	Renewed int `json:"renewed"`
	// Unknown are the leases ("42-0") and the instances ("namespace/service/id") of
	// the request that are gone: register those again.
	Unknown []string `json:"unknown"`
	// Fenced are instances of the request of which a later incarnation is
	// registered: stop beating for those.
	Fenced []string `json:"fenced,omitempty"`
	// Persistent are instances of the request that have no lease and need no beats.
	Persistent []string `json:"persistent,omitempty"`
	Next       Duration `json:"next"`
}

// Heartbeats is a batch of heartbeats: leases by id, instances by name, at most
// MaxHeartbeatItems together.
type Heartbeats struct {
	Leases    []LeaseID      `json:"leases,omitempty"`
	Instances []InstanceBeat `json:"instances,omitempty"`
}

// InstanceBeat is a heartbeat for an instance, by name.
type InstanceBeat struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	ID        string `json:"id"`
	// Incarnation fences the heartbeat; 0 asks for no fencing.
	Incarnation uint64 `json:"incarnation,omitempty"`
}

// Key names the instance.
func (b *InstanceBeat) Key() InstanceKey {
	return InstanceKey{Namespace: b.Namespace, Service: b.Service, ID: b.ID}
}

// LeaseRequest asks for a lease that many instances may name.
type LeaseRequest struct {
	TTL TTL `json:"ttl"`
	// Name is shown to people; at most MaxNameLen bytes.
	Name string `json:"name,omitempty"`
}

// Normalize checks the request and fills in the default TTL.
func (r *LeaseRequest) Normalize() error {
	var f faults
	if r.TTL == 0 {
		r.TTL = TTL(DefaultTTL)
	}
	if r.TTL == NoTTL {
		f.add("/ttl", CodeTTLOutOfRange, "a lease has a ttl from 1s to 24h")
	} else if err := new(TTL).set(r.TTL.Duration()); err != nil {
		f.addErr("/ttl", err)
	}
	if len(r.Name) > MaxNameLen || !printable(r.Name) {
		f.add("/name", CodeInvalidName, "is longer than 128 bytes or holds control characters")
	}
	return f.err()
}
