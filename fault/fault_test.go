package fault_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-registry/muster/fault"
)

// TestTable holds the table against the code: every bug has a row, is built in at
// one place, and is caught by tests that exist.
func TestTable(t *testing.T) {
	uses := usesIn(t, "..")
	consts := constants(t, "bugs.go")
	for name, value := range consts {
		if fault.Find(value) == nil {
			t.Errorf("fault.%s has no row in Bugs", name)
		}
		if len(uses[name]) != 1 {
			t.Errorf("fault.%s is asked for at %d places, want one: %v", name, len(uses[name]), uses[name])
		}
		delete(uses, name)
	}
	for name, at := range uses {
		t.Errorf("%v: there is no fault.%s", at, name)
	}
	seen := map[fault.Bug]bool{}
	for _, r := range fault.Bugs {
		if seen[r.Bug] {
			t.Errorf("%s has two rows", r.Bug)
		}
		seen[r.Bug] = true
		if r.Breaks == "" || r.Promise == "" || len(r.Caught) == 0 {
			t.Errorf("%s: say what it breaks, which promise, and what catches it: %+v", r.Bug, r)
		}
		for _, c := range r.Caught {
			checkCatch(t, r.Bug, c)
		}
	}
	if len(consts) != len(fault.Bugs) {
		t.Errorf("got %d rows for %d bugs", len(fault.Bugs), len(consts))
	}
}

// checkCatch asks that the test is there and that its message can be told from
// any failure.
func checkCatch(t *testing.T, bug fault.Bug, c fault.Catch) {
	t.Helper()
	test, _, _ := strings.Cut(c.Test, "/")
	if !hasTest(t, filepath.Join("..", c.Room), test) {
		t.Errorf("%s: there is no %s in %s", bug, test, c.Room)
	}
	says, err := regexp.Compile(c.Says)
	switch {
	case err != nil:
		t.Errorf("%s: %v", bug, err)
	case says.MatchString("") || says.MatchString("--- FAIL: "+c.Test):
		t.Errorf("%s: %q matches any failure of %s", bug, c.Says, c.Test)
	}
}

func hasTest(t *testing.T, dir, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+test+"(t *testing.T)") {
			return true
		}
	}
	return false
}

// constants is the bugs that a file declares, by the names of their constants.
func constants(t *testing.T, file string) map[string]string {
	t.Helper()
	found := map[string]string{}
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if id, ok := v.Type.(*ast.Ident); ok && id.Name == "Bug" {
				found[v.Names[0].Name] = strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`)
			}
		}
		return true
	})
	return found
}

// usesIn is where the code under root, tests aside, asks for each bug.
func usesIn(t *testing.T, root string) map[string][]string {
	t.Helper()
	uses := map[string][]string{}
	asks := regexp.MustCompile(`fault\.Is\(fault\.(\w+)\)`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range asks.FindAllStringSubmatch(string(b), -1) {
			uses[m[1]] = append(uses[m[1]], path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return uses
}
