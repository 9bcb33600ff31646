package httpapi

import (
	"maps"
	"reflect"

	"github.com/muster-registry/muster"
)

// Route is a row of the table, for the tests that hold it against other things.
type Route struct {
	Method, Path, Permission string
	Parameters               []string
}

// Routes is the table.
func Routes() []Route {
	var out []Route
	for _, r := range routeTable() {
		out = append(out, Route{r.method, r.path, string(r.permission), collect(r.params.names())})
	}
	return out
}

// DecodeJSON is the strict decoder of bodies.
func DecodeJSON(data []byte, into any) error { return decodeJSON(data, into) }

// RegistryFields are the fields of an instance that a body may hold unread.
func RegistryFields() map[string]bool { return maps.Clone(registryFields) }

// ParseQuery parses a query of which every parameter is allowed.
func ParseQuery(raw string) (*muster.Query, muster.ReadOptions, error) {
	v, err := parseQuery(raw, 1<<numParams-1)
	if err != nil {
		return nil, muster.ReadOptions{}, err
	}
	q, err := v.query()
	if err != nil {
		return nil, muster.ReadOptions{}, err
	}
	o, _, _, err := v.readOptions()
	return q, o, err
}

// The types of bodies that only this package encodes.
var (
	BalancerViewType = reflect.TypeFor[balancerView]()
	BatchRequestType = reflect.TypeFor[batchRequest]()
	BatchAnswerType  = reflect.TypeFor[batchAnswer]()
	BatchResultType  = reflect.TypeFor[batchResult]()
)
