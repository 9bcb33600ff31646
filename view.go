package muster

import (
	"encoding/json"
	"sort"
	"sync"
)

// EmptyReason says why a list of instances is empty.
type EmptyReason string

// The reasons of an empty list.
const (
	// EmptyDeregistered: the last instance was taken away on purpose.
	EmptyDeregistered EmptyReason = "deregistered"
	// EmptyExpired: the lease of the last instance ran out.
	EmptyExpired EmptyReason = "expired"
	// EmptyFiltered: there are instances, but none passes the filters.
	EmptyFiltered EmptyReason = "filtered"
)

// View is the immutable picture of one service at one index. Whoever reads,
// watches or picks shares the same View, and with it all that was derived from
// it: each derived value is computed at most once. The exported fields are not
// to be changed once the View is published. A View is safe for concurrent use
// and must not be copied.
type View struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	// Index is the index of the last log entry that changed visible content of
	// the service.
	Index uint64 `json:"index"`
	// Instances are sorted by id and never nil.
	Instances []*Instance `json:"instances"`
	// Protected says that the expiry governor holds instances of this service.
	Protected bool `json:"protected"`
	// EmptyReason says why Instances is empty; "" where it is not.
	EmptyReason EmptyReason `json:"empty_reason"`
	// Settings are the service's own; nil where it has none and the defaults hold.
	Settings *Settings `json:"settings,omitempty"`

	partial bool // made by Filtered
	once    sync.Once
	encoded []byte
	derived sync.Map // key string -> *derivedValue
}

type derivedValue struct {
	once  sync.Once
	value any
}

// JSON is the view as GET /v1/services/{service} answers it, encoded at the
// first call. The caller must not change the bytes.
func (v *View) JSON() []byte {
	v.once.Do(func() {
		b, err := json.Marshal(v)
		if err != nil { // only strings, numbers and times: cannot happen
			panic("muster: encoding a view: " + err.Error())
		}
		v.encoded = b
	})
	return v.encoded
}

// Derive returns what build makes of v, computed at the first call for key and
// shared by all later ones. Concurrent first calls wait for one build. Keys are
// never dropped while v lives, so that a key must not come from a user unbounded.
func (v *View) Derive(key string, build func(*View) any) any {
	d, ok := v.derived.Load(key)
	if !ok {
		d, _ = v.derived.LoadOrStore(key, new(derivedValue))
	}
	dv := d.(*derivedValue)
	dv.once.Do(func() { dv.value = build(v) })
	return dv.value
}

// Key names the view's service.
func (v *View) Key() ServiceKey { return ServiceKey{v.Namespace, v.Service} }

// Find returns the instance of that id, nil where there is none.
func (v *View) Find(id string) *Instance {
	n := sort.Search(len(v.Instances), func(n int) bool { return v.Instances[n].ID >= id })
	if n < len(v.Instances) && v.Instances[n].ID == id {
		return v.Instances[n]
	}
	return nil
}

// Routable is the number of instances that may be given traffic.
func (v *View) Routable() int {
	return v.Derive("muster.routable", func(v *View) any {
		n := 0
		for _, i := range v.Instances {
			if i.Routable {
				n++
			}
		}
		return n
	}).(int)
}

// Partial reports whether v is only a part of its service's instances, made by
// Filtered.
func (v *View) Partial() bool { return v.partial }

// Filtered returns a view that holds only the instances keep lets through, at
// the same index, with EmptyFiltered where none is left of some.
func (v *View) Filtered(keep func(*Instance) bool) *View {
	f := &View{
		Namespace: v.Namespace, Service: v.Service, Index: v.Index, Instances: []*Instance{},
		Protected: v.Protected, EmptyReason: v.EmptyReason, Settings: v.Settings, partial: true,
	}
	for _, i := range v.Instances {
		if keep(i) {
			f.Instances = append(f.Instances, i)
		}
	}
	if len(f.Instances) == 0 && len(v.Instances) > 0 {
		f.EmptyReason = EmptyFiltered
	}
	return f
}

// ServiceSummary is one line of GET /v1/services.
type ServiceSummary struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Instances int    `json:"instances"`
	Routable  int    `json:"routable"`
	Index     uint64 `json:"index"`
}

// Services is what GET /v1/services answers.
type Services struct {
	Services []ServiceSummary `json:"services"`
}
