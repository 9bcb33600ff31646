package muster

// Lease is what GET /v1/leases/{id} shows.
type Lease struct {
	ID   LeaseID `json:"id"`
	Name string  `json:"name,omitempty"`
	TTL  TTL     `json:"ttl"`
	// Shared is true for a lease granted by POST /v1/leases, which many instances
	// may name; an instance's own lease holds only that instance.
	Shared bool `json:"shared"`
	// Generation is the index of the last registration that touched the lease.
	Generation uint64 `json:"generation"`
	// Remaining is the time left before it runs out, on the word of the leader;
	// zero where that was not asked.
	Remaining Duration `json:"remaining,omitempty"`
	// Instances are what hangs on it, in order.
	Instances []InstanceKey `json:"instances"`
}

// InstanceKey names an instance.
type InstanceKey struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	ID        string `json:"id"`
}

// String renders the key as "namespace/service/id".
func (k InstanceKey) String() string { return k.Namespace + "/" + k.Service + "/" + k.ID }

// Clean folds and checks the key's names.
func (k *InstanceKey) Clean() error {
	var f faults
	var err error
	if k.Namespace, err = CleanNamespace(k.Namespace); err != nil {
		f.addErr("/namespace", err)
	}
	if k.Service, err = CleanService(k.Service); err != nil {
		f.addErr("/service", err)
	}
	if err := CheckID(k.ID); err != nil {
		f.addErr("/id", err)
	}
	return f.err()
}

// ServiceKey names a service.
type ServiceKey struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
}

// String renders the key as "namespace/service".
func (k ServiceKey) String() string { return k.Namespace + "/" + k.Service }

// Compare orders keys by namespace, then service.
func (k ServiceKey) Compare(o ServiceKey) int {
	if c := compareStrings(k.Namespace, o.Namespace); c != 0 {
		return c
	}
	return compareStrings(k.Service, o.Service)
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
