package muster_test

import (
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// logKeys are the keys that docs/logs.md explains, one a row of its table.
func logKeys(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile("docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	_, table, _ := strings.Cut(string(b), "## The keys")
	for _, m := range regexp.MustCompile(`(?m)^\| (`+"`[^|]*"+`) \|`).FindAllStringSubmatch(table, -1) {
		for key := range strings.SplitSeq(m[1], ", ") {
			key = strings.Trim(key, "`")
			if keys[key] {
				t.Errorf("docs/logs.md explains %s twice", key)
			}
			keys[key] = true
		}
	}
	return keys
}

// TestLogKeys asks that every line of a log has a constant message in lower case, and
// that its keys are of the one list of docs/logs.md, all of which are used.
func TestLogKeys(t *testing.T) {
	known, lines := logKeys(t), 0
	used := map[string]bool{}
	for dir, files := range rooms(t) {
		for _, path := range files {
			// hclog.go hands on what raft says, in raft's own words.
			if strings.HasSuffix(path, "_test.go") || path == "cluster/hclog.go" || dir == "clustertest" {
				continue
			}
			f, fset := parse(t, path)
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				c := &logCheck{t: t, fset: fset, fn: fn, used: used}
				ast.Inspect(fn.Body, c.visit)
				lines += c.lines
			}
		}
	}
	if lines < 80 {
		t.Errorf("found only %d lines that are logged", lines)
	}
	for key := range used {
		switch {
		case !regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`).MatchString(key):
			t.Errorf("the key %q is not in snake_case", key)
		case !known[key]:
			t.Errorf("docs/logs.md does not explain the key %s", key)
		}
	}
	for key := range known {
		if !used[key] {
			t.Errorf("docs/logs.md explains %s, which no line has", key)
		}
	}
}

// logCheck looks at the lines that one function logs.
type logCheck struct {
	t     *testing.T
	fset  *token.FileSet
	fn    *ast.FuncDecl
	used  map[string]bool
	lines int
}

var logMethods = map[string]int{ // at which place the message stands
	"Debug": 0, "Info": 0, "Warn": 0, "Error": 0,
	"DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1, "Log": 2, "LogAttrs": 2,
	"warn": 1, // cluster/peer's notices
}

// isLogger reports whether an expression is a logger, by how loggers are called here.
func isLogger(x ast.Expr) bool {
	name := ""
	switch x := x.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	}
	switch name {
	case "log", "logger", "Logger", "slog", "notices":
		return true
	}
	return false
}

func (c *logCheck) visit(n ast.Node) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return true
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !isLogger(sel.X) {
		return true
	}
	if sel.Sel.Name == "With" {
		c.pairs(call.Args)
		return true
	}
	at, ok := logMethods[sel.Sel.Name]
	if !ok || len(call.Args) <= at || isForwarder(c.fn) {
		return true
	}
	c.lines++
	msg, ok := literal(call.Args[at])
	switch {
	case !ok:
		c.complain(call, "its message is not constant")
	case msg == "" || msg[0] < 'a' || msg[0] > 'z' || strings.HasSuffix(msg, "."):
		c.complain(call, "its message %q does not begin in lower case, or ends in a stop", msg)
	}
	if call.Ellipsis.IsValid() {
		c.gathered()
		return true
	}
	c.pairs(call.Args[at+1:])
	return true
}

// isForwarder is a function that is given the line of another.
func isForwarder(fn *ast.FuncDecl) bool { return fn.Name.Name == "warn" }

func (c *logCheck) complain(at ast.Node, format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("%s: "+format, append([]any{c.fset.Position(at.Pos())}, args...)...)
}

// gathered checks the keys of a function that gathers them in a slice of its own.
func (c *logCheck) gathered() {
	ast.Inspect(c.fn.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			if a, ok := n.Type.(*ast.ArrayType); ok {
				if el, ok := a.Elt.(*ast.Ident); ok && el.Name == "any" {
					c.pairs(n.Elts)
				}
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "append" && len(n.Args) > 1 {
				if first, ok := n.Args[0].(*ast.Ident); ok && first.Name == "args" {
					c.pairs(n.Args[1:])
				}
			}
		}
		return true
	})
}

// pairs checks keys and values as slog takes them: a constant key and what follows
// it, or an attribute.
func (c *logCheck) pairs(args []ast.Expr) {
	for n := 0; n < len(args); n++ {
		if key, ok := literal(args[n]); ok {
			c.used[key] = true
			n++
			continue
		}
		switch x := args[n].(type) {
		case *ast.CallExpr:
			c.attr(x)
		case *ast.Ident: // an attribute that was made before
			ast.Inspect(c.fn.Body, func(m ast.Node) bool {
				if as, ok := m.(*ast.AssignStmt); ok && len(as.Lhs) == 1 && len(as.Rhs) == 1 {
					if id, ok := as.Lhs[0].(*ast.Ident); ok && id.Name == x.Name {
						if call, ok := as.Rhs[0].(*ast.CallExpr); ok {
							c.attr(call)
						}
					}
				}
				return true
			})
		default:
			c.complain(args[n], "the key of a line is not constant")
		}
	}
}

// attr checks slog.String("key", …) and its like.
func (c *logCheck) attr(call *ast.CallExpr) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if ok && isLogger(sel.X) && len(call.Args) == 2 {
		if key, ok := literal(call.Args[0]); ok {
			c.used[key] = true
			return
		}
	}
	name := ""
	if ok {
		name = sel.Sel.Name
	} else if id, isIdent := call.Fun.(*ast.Ident); isIdent {
		name = id.Name
	}
	if name == "ids" || name == "requestIDs" { // request_id and trace_id, in httpapi
		c.used["request_id"], c.used["trace_id"] = true, true
		return
	}
	c.complain(call, "the key of a line is not constant")
}

func literal(x ast.Expr) (string, bool) {
	lit, ok := x.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}
