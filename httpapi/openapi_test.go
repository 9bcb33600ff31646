package httpapi_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
	"github.com/muster-registry/muster/httpapi"
	"github.com/muster-registry/muster/problem"
)

// node is a mapping of the description.
type node = map[string]any

func describe(t *testing.T) node {
	t.Helper()
	b, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// resolve follows a $ref, if v is one.
func resolve(t *testing.T, doc node, v any) node {
	t.Helper()
	m, ok := v.(node)
	if !ok {
		t.Fatalf("%v is not a mapping", v)
	}
	ref, ok := m["$ref"].(string)
	if !ok {
		return m
	}
	at := any(doc)
	for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		next, ok := at.(node)[name]
		if !ok {
			t.Fatalf("%s leads nowhere", ref)
		}
		at = next
	}
	return resolve(t, doc, at)
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// TestDescriptionAndRoutes holds the table of routes and openapi.yaml together,
// both ways: paths, methods, permissions, path and query parameters.
func TestDescriptionAndRoutes(t *testing.T) {
	doc := describe(t)
	type op struct{ method, path string }
	described := map[op]node{}
	for path, item := range doc["paths"].(node) {
		for method, o := range item.(node) {
			if method != "parameters" {
				described[op{strings.ToUpper(method), path}] = o.(node)
			}
		}
	}
	ids := map[string]op{}
	for _, r := range httpapi.Routes() {
		k := op{r.Method, r.Path}
		o, ok := described[k]
		if !ok {
			t.Errorf("%v is not described", k)
			continue
		}
		delete(described, k)
		if got := o["x-permission"]; got != r.Permission {
			t.Errorf("%v: described with permission %v, is %s", k, got, r.Permission)
		}
		id, _ := o["operationId"].(string)
		if other, twice := ids[id]; twice || id == "" {
			t.Errorf("%v: operationId %q is empty or that of %v", k, id, other)
		}
		ids[id] = k
		var query, path []string
		item := doc["paths"].(node)[r.Path].(node)
		for _, p := range slices.Concat(list(item["parameters"]), list(o["parameters"])) {
			p := resolve(t, doc, p)
			switch name := p["name"].(string); p["in"] {
			case "query":
				query = append(query, name)
			case "path":
				path = append(path, "{"+name+"}")
			}
			if p["description"] == nil || p["schema"] == nil {
				t.Errorf("%v: parameter %v has no description or no schema", k, p["name"])
			}
		}
		if got, want := slices.Sorted(slices.Values(query)), slices.Sorted(slices.Values(r.Parameters)); !slices.Equal(got, want) {
			t.Errorf("%v: described with parameters %v, takes %v", k, got, want)
		}
		for _, p := range path {
			if !strings.Contains(r.Path, p) {
				t.Errorf("%v: %s is not in the path", k, p)
			}
		}
		if got, want := len(path), strings.Count(r.Path, "{"); got != want {
			t.Errorf("%v: %d path parameters are described, there are %d", k, got, want)
		}
		// A heartbeat says all it has to say by its path, a pick by its query.
		says := strings.HasSuffix(r.Path, "/heartbeat") || strings.HasSuffix(r.Path, "/pick")
		if hasBody := (r.Method == "PUT" || r.Method == "POST") && !says; hasBody != (o["requestBody"] != nil) {
			t.Errorf("%v: request body described: %v, want %v", k, o["requestBody"] != nil, hasBody)
		}
		checkResponses(t, doc, k.method+" "+k.path, o)
	}
	for k := range described {
		t.Errorf("%v is described and is no route", k)
	}
}

func checkResponses(t *testing.T, doc node, name string, o node) {
	t.Helper()
	responses := o["responses"].(node)
	if responses["default"] == nil || o["summary"] == nil {
		t.Errorf("%s has no default answer or no summary", name)
	}
	success := false
	for status, r := range responses {
		r := resolve(t, doc, r)
		success = success || status[0] == '2'
		content, _ := r["content"].(node)
		if status[0] >= '4' || status == "default" {
			if content[problem.ContentType] == nil {
				t.Errorf("%s: the answer %s is no problem", name, status)
			}
		}
	}
	if !success {
		t.Errorf("%s has no answer of success", name)
	}
}

// TestDescribedRefs follows every reference there is.
func TestDescribedRefs(t *testing.T) {
	doc := describe(t)
	n := 0
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case node:
			if _, ok := v["$ref"]; ok {
				resolve(t, doc, v)
				n++
			}
			for _, c := range v {
				walk(c)
			}
		case []any:
			for _, c := range v {
				walk(c)
			}
		}
	}
	walk(doc)
	if n < 100 {
		t.Errorf("found %d references", n)
	}
}

// TestDescribedSchemas holds the schemas against the types that are encoded.
func TestDescribedSchemas(t *testing.T) {
	schemas := describe(t)["components"].(node)["schemas"].(node)
	for name, typ := range map[string]reflect.Type{
		"Instance": reflect.TypeFor[muster.Instance](), "Check": reflect.TypeFor[muster.Check](),
		"Override": reflect.TypeFor[muster.Override](), "View": reflect.TypeFor[muster.View](),
		"ServiceSummary": reflect.TypeFor[muster.ServiceSummary](), "Services": reflect.TypeFor[muster.Services](), "Settings": reflect.TypeFor[muster.Settings](),
		"Event": reflect.TypeFor[muster.Event](), "Events": reflect.TypeFor[muster.Events](),
		"Member": reflect.TypeFor[muster.Member](), "Cluster": reflect.TypeFor[muster.Cluster](), "Governor": reflect.TypeFor[muster.Governor](),
		"Limits": reflect.TypeFor[muster.Limits](), "Problem": reflect.TypeFor[problem.Problem](),
		"Beat": reflect.TypeFor[muster.Beat](), "Beats": reflect.TypeFor[muster.Beats](), "Heartbeats": reflect.TypeFor[muster.Heartbeats](),
		"Lease": reflect.TypeFor[muster.Lease](), "LeaseRequest": reflect.TypeFor[muster.LeaseRequest](), "InstanceKey": reflect.TypeFor[muster.InstanceKey](),
		"Pick": reflect.TypeFor[muster.Pick](), "PickReport": reflect.TypeFor[muster.PickReport](), "OutcomesReport": reflect.TypeFor[muster.OutcomesReport](),
		"BalancerView": httpapi.BalancerViewType, "InstanceStats": reflect.TypeFor[balancer.InstanceStats](),
		"BatchAnswer": httpapi.BatchAnswerType, "BatchResult": httpapi.BatchResultType, "Batch": httpapi.BatchRequestType,
	} {
		got := slices.Sorted(maps.Keys(schemas[name].(node)["properties"].(node)))
		if want := jsonNames(typ); !slices.Equal(got, want) {
			t.Errorf("%s is described with %v\nand encoded with %v", name, got, want)
		}
	}
	for name, f := range schemas["Instance"].(node)["properties"].(node) {
		readOnly, _ := f.(node)["readOnly"].(bool)
		if ours := httpapi.RegistryFields()[name]; ours != readOnly {
			t.Errorf("instance field %s: described as read-only %v, is %v", name, readOnly, ours)
		}
	}
}

func jsonNames(t reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); f.IsExported() && name != "-" && name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// TestDescribedCodes holds the enumeration of codes against the root package.
func TestDescribedCodes(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "../error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Code" {
				s, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				want = append(want, s)
			}
		}
		return true
	})
	code := describe(t)["components"].(node)["schemas"].(node)["Problem"].(node)["properties"].(node)["code"].(node)
	var got []string
	for _, c := range list(code["enum"]) {
		got = append(got, c.(string))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("described codes %v\nknown codes     %v", got, want)
	}
}

// TestDescribedExamples sends each example of an instance's body through the
// decoder, and checks that each other example has only names its schema has.
func TestDescribedExamples(t *testing.T) {
	doc := describe(t)
	checked := 0
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case node:
			if ex, ok := v["example"].(node); ok && v["schema"] != nil {
				checkNames(t, doc, v["schema"], ex)
				checked++
				if v["schema"].(node)["$ref"] == "#/components/schemas/Instance" {
					b, err := json.Marshal(ex)
					if err != nil {
						t.Fatal(err)
					}
					if err := httpapi.DecodeJSON(b, new(muster.Instance)); err != nil {
						t.Errorf("the example %s: %v", b, err)
					}
				}
			}
			for _, c := range v {
				walk(c)
			}
		case []any:
			for _, c := range v {
				walk(c)
			}
		}
	}
	walk(doc)
	if checked < 20 {
		t.Errorf("checked %d examples", checked)
	}
}

func checkNames(t *testing.T, doc node, schema any, ex node) {
	t.Helper()
	s := resolve(t, doc, schema)
	if first := list(s["oneOf"]); len(first) > 0 { // examples are of the first
		s = resolve(t, doc, first[0])
	}
	properties, ok := s["properties"].(node)
	if !ok {
		return
	}
	for name, v := range ex {
		p, ok := properties[name]
		if !ok {
			t.Errorf("example %v: %s is not in its schema", ex, name)
			continue
		}
		sub := resolve(t, doc, p)
		switch v := v.(type) {
		case node:
			checkNames(t, doc, sub, v)
		case []any:
			for _, e := range v {
				if m, ok := e.(node); ok && sub["items"] != nil {
					checkNames(t, doc, sub["items"], m)
				}
			}
		}
	}
	for _, r := range list(s["required"]) {
		if _, ok := ex[r.(string)]; !ok {
			t.Errorf("example %v lacks %s", ex, r)
		}
	}
}

func TestDescriptionIsServed(t *testing.T) {
	f := newFixture(t, nil)
	w := httptest.NewRecorder()
	f.server.Handler().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/v1/openapi.yaml", nil))
	want, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if w.Code != 200 || w.Body.String() != string(want) || w.Header().Get("Content-Type") != "application/yaml" {
		t.Errorf("got %d %s with %d bytes", w.Code, w.Header().Get("Content-Type"), w.Body.Len())
	}
}
