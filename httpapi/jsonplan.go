package httpapi

import (
	"reflect"
	"strings"
	"sync"

	"github.com/muster-registry/muster"
)

// plan is what is known of a struct type.
type plan struct {
	fields []field
	byName map[string]int
	preset func(reflect.Value) // applied to a new element of a list
}

type field struct {
	name  string
	index int
	// ours: the field is the registry's; what a request says there is skipped,
	// whatever it is, so that an answer can be sent back.
	ours bool
}

// registryFields are the fields of an instance that a request may hold and that
// are not read from it.
var registryFields = map[string]bool{
	"status": true, "routable": true, "suspect": true, "suspect_since": true, "suspect_reason": true,
	"status_cause": true, "status_since": true, "held_until": true, "override": true, "registered_at": true,
	"create_index": true, "modify_index": true,
}

var (
	instanceType = reflect.TypeFor[muster.Instance]()
	// checkStateType is what the registry knows of a check, beside what its owner
	// asks for.
	checkStateType = reflect.TypeFor[muster.CheckState]()
	plans          sync.Map // reflect.Type -> *plan
)

func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	p := &plan{byName: map[string]int{}}
	add := func(f reflect.StructField, index int, ours bool) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			return
		}
		p.byName[name] = len(p.fields)
		p.fields = append(p.fields, field{name: name, index: index, ours: ours || t == instanceType && registryFields[name]})
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.Type == checkStateType {
			for n := range checkStateType.NumField() {
				add(checkStateType.Field(n), i, true)
			}
		} else {
			add(f, i, false)
		}
	}
	if t == instanceType {
		p.preset = func(v reflect.Value) { v.Addr().Interface().(*muster.Instance).Weight = muster.DefaultWeight }
	}
	got, _ := plans.LoadOrStore(t, p)
	return got.(*plan)
}
