package filter

import (
	"slices"
	"sync"

	"github.com/hashicorp/go-bexpr"
	"github.com/hashicorp/go-bexpr/grammar"

	"github.com/muster-registry/muster"
)

// Bounds of what is kept of users' filters.
const (
	maxCompiled    = 512     // compiled expressions of a node
	maxPerView     = 64      // filtered views kept with one view
	maxExpressions = 100_000 // steps of the parser an expression may take
)

// filterable is what an expression sees of an instance; the names are those of
// the JSON.
type filterable struct {
	Namespace   string            `bexpr:"namespace"`
	Service     string            `bexpr:"service"`
	ID          string            `bexpr:"id"`
	Address     string            `bexpr:"address"`
	Port        int               `bexpr:"port"`
	Ports       map[string]int    `bexpr:"ports"`
	Version     string            `bexpr:"version"`
	Zone        string            `bexpr:"zone"`
	Weight      int               `bexpr:"weight"`
	Tags        []string          `bexpr:"tags"`
	Meta        map[string]string `bexpr:"meta"`
	Status      string            `bexpr:"status"`
	Routable    bool              `bexpr:"routable"`
	Suspect     bool              `bexpr:"suspect"`
	StatusCause string            `bexpr:"status_cause"`
	Incarnation uint64            `bexpr:"incarnation"`
}

var filterFields = []string{
	"namespace", "service", "id", "address", "port", "ports", "version", "zone", "weight", "tags", "meta",
	"status", "routable", "suspect", "status_cause", "incarnation",
}

// Filter narrows views. A nil Filter lets everything through.
type Filter struct {
	query *muster.Query
	key   string
	expr  *expression // nil where the query has no expression
}

// expression is a compiled filter expression. Evaluating one fills in compiled
// regular expressions as it meets them, so one caller at a time.
type expression struct {
	mu   sync.Mutex
	eval *bexpr.Evaluator // guarded by mu
}

func (e *expression) match(i *muster.Instance) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.eval.Evaluate(filterableOf(i))
}

// Cache makes filters and keeps compiled expressions. The zero Cache is ready.
type Cache struct {
	mu       sync.Mutex
	compiled map[string]*expression // guarded by mu
}

// Compile checks q and makes a filter of it, nil for a query that lets everything
// through. The error of an expression that cannot be used is a *muster.Error of
// CodeInvalidFilter.
func (c *Cache) Compile(q *muster.Query) (*Filter, error) {
	if q.IsZero() {
		return nil, nil
	}
	f := &Filter{query: q, key: q.Key()}
	if q.Filter == "" {
		return f, nil
	}
	c.mu.Lock()
	e, ok := c.compiled[q.Filter]
	c.mu.Unlock()
	if !ok {
		var err error
		if e, err = compileExpression(q.Filter); err != nil {
			return nil, err
		}
		c.mu.Lock()
		if c.compiled == nil || len(c.compiled) >= maxCompiled {
			c.compiled = map[string]*expression{}
		}
		c.compiled[q.Filter] = e
		c.mu.Unlock()
	}
	f.expr = e
	return f, nil
}

func compileExpression(text string) (*expression, error) {
	bad := func(err error) error {
		return muster.Errorf(muster.CodeInvalidFilter, "the filter expression cannot be used: %s", firstLine(err.Error())).
			WithHint(`an example: zone == "eu-1a" and "canary" in tags and meta.team != "pay"`)
	}
	if len(text) > muster.MaxFilterLen {
		return nil, muster.Errorf(muster.CodeInvalidFilter, "the filter expression is longer than %d bytes", muster.MaxFilterLen)
	}
	ast, err := grammar.Parse("", []byte(text), grammar.MaxExpressions(maxExpressions))
	if err != nil {
		return nil, bad(err)
	}
	if name := unknownField(ast, filterFields); name != "" {
		return nil, muster.Errorf(muster.CodeInvalidFilter, "the filter expression names %q, which is not a field", name).
			WithHint("the fields are %v", filterFields)
	}
	eval, err := bexpr.CreateEvaluator(text, bexpr.WithMaxExpressions(maxExpressions), bexpr.WithUnknownValue(""))
	if err != nil {
		return nil, bad(err)
	}
	// A comparison of a field with a value of the wrong kind only shows when it is
	// evaluated: do that now, where the user can still be told.
	e := &expression{eval: eval}
	probe := &muster.Instance{Ports: map[string]int{}, Meta: map[string]string{}, Tags: []string{""}}
	if _, err := e.match(probe); err != nil {
		return nil, bad(err)
	}
	return e, nil
}

// unknownField returns the first selector of ast that is neither one of known
// nor a name bound by an enclosing any or all; "" where there is none.
func unknownField(ast any, known []string) string {
	switch n := ast.(type) {
	case *grammar.UnaryExpression:
		return unknownField(n.Operand, known)
	case *grammar.BinaryExpression:
		if s := unknownField(n.Left, known); s != "" {
			return s
		}
		return unknownField(n.Right, known)
	case *grammar.MatchExpression:
		return unknownSelector(n.Selector, known)
	case *grammar.CollectionExpression:
		if s := unknownSelector(n.Selector, known); s != "" {
			return s
		}
		b := n.NameBinding
		return unknownField(n.Inner, append(slices.Clip(known), b.Default, b.Index, b.Value))
	}
	return ""
}

func unknownSelector(s grammar.Selector, known []string) string {
	if len(s.Path) == 0 || s.Path[0] == "" || !slices.Contains(known, s.Path[0]) {
		return s.String()
	}
	return ""
}

func firstLine(s string) string {
	for i := range len(s) {
		if s[i] == '\n' {
			return s[:i]
		}
	}
	return s
}

func filterableOf(i *muster.Instance) *filterable {
	return &filterable{
		Namespace: i.Namespace, Service: i.Service, ID: i.ID, Address: i.Address, Port: i.Port, Ports: i.Ports,
		Version: i.Version, Zone: i.Zone, Weight: i.Weight, Tags: i.Tags, Meta: i.Meta, Status: string(i.Status),
		Routable: i.Routable, Suspect: i.Suspect, StatusCause: string(i.StatusCause), Incarnation: i.Incarnation,
	}
}

// filteredViews are the filtered views kept with one view.
type filteredViews struct {
	mu    sync.Mutex
	byKey map[string]*filteredView // guarded by mu, at most maxPerView
}

// filteredView is made once, by the first who asks, while the others wait: when a
// service changes, all who watch it through one filter ask at the same time.
type filteredView struct {
	once sync.Once
	view *muster.View
	err  error
}

// Apply returns the view of v that f lets through, shared by all who use an equal
// filter on v. The error is that of an expression that does not fit an instance.
func (f *Filter) Apply(v *muster.View) (*muster.View, error) {
	if f == nil {
		return v, nil
	}
	shared := v.Derive("filter.views", func(*muster.View) any { return &filteredViews{byKey: map[string]*filteredView{}} }).(*filteredViews)
	shared.mu.Lock()
	one := shared.byKey[f.key]
	if one == nil {
		one = new(filteredView)
		if len(shared.byKey) < maxPerView {
			shared.byKey[f.key] = one
		}
	}
	shared.mu.Unlock()
	one.once.Do(func() { one.view, one.err = f.narrow(v) })
	return one.view, one.err
}

// narrow makes the view of v that f lets through.
func (f *Filter) narrow(v *muster.View) (*muster.View, error) {
	var failed error
	made := v.Filtered(func(i *muster.Instance) bool {
		if failed != nil || !f.query.Match(i) {
			return false
		}
		if f.expr == nil {
			return true
		}
		ok, err := f.expr.match(i)
		if err != nil {
			failed = muster.Errorf(muster.CodeInvalidFilter, "the filter expression cannot be used on instance %q: %s", i.ID, firstLine(err.Error())).WithCause(err)
		}
		return ok
	})
	if failed != nil {
		return nil, failed
	}
	return made, nil
}
