package muster_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/muster-registry/muster"

// room is one row of the house: a folder, and which of our rooms it may import,
// its tests included. "*" is anything below.
type room struct {
	path string
	may  []string
	why  string // what the room is for, in the words of ARCHITECTURE.md
	// goroutines says whether the room may contain a go statement.
	goroutines bool
}

// house is the whole building, floor by floor from the ground. Arrows point down
// only; a row is added in the commit that adds the room.
var house = []room{
	{path: ".", why: "the domain's nouns"},
	{path: "durable", why: "files that are whole or not there"},
	{path: "wire", why: "fields of messages, written and read"},
	{path: "fault", why: "deliberate bugs, in builds that ask for them"},

	{path: "fsm", may: []string{".", "fault", "wire"}, why: "the replicated state as a function"},
	{path: "lease", may: []string{".", "fault", "wire"}, why: "who was last heard from when", goroutines: true},
	{path: "health", may: []string{".", "wire"}, why: "probes", goroutines: true},
	{path: "watch", may: []string{".", "fault"}, why: "fan-out of committed events", goroutines: true},
	{path: "balancer", may: []string{".", "wire"}, why: "choosing one of many"},
	{path: "filter", may: []string{"."}, why: "which instances a query means"},
	{path: "problem", may: []string{"."}, why: "coded error and problem+json, both ways"},

	{path: "tracing", may: []string{"."}, why: "the spans of a process, by OTLP"},

	{path: "registry", may: []string{".", "fault", "fsm", "lease", "watch", "balancer", "health", "filter"}, why: "the front desk"},
	{path: "cluster/logstore", may: []string{".", "fault", "durable"}, why: "raft's log on disk, with checksums and fail-stop", goroutines: true},
	{path: "cluster/peer", may: []string{".", "wire"}, why: "the peer port: raft and internal RPC", goroutines: true},
	{path: "cluster", may: []string{".", "fault", "cluster/logstore", "cluster/peer", "wire", "durable"}, why: "the raft node and the gossip", goroutines: true},
	{path: "httpapi", may: []string{".", "problem", "balancer"}, why: "routes, decoding, rendering", goroutines: true},

	{path: "node", may: []string{".", "fault", "fsm", "lease", "health", "watch", "balancer", "problem", "registry", "cluster", "cluster/logstore", "cluster/peer", "httpapi", "wire", "durable"}, why: "one whole node", goroutines: true},
	{path: "client", may: []string{".", "fault", "balancer", "filter", "problem", "durable"}, why: "the Go SDK", goroutines: true},

	{path: "bench", may: []string{"."}, why: "the registry measured from outside", goroutines: true},

	{path: "client/grpcresolver", may: []string{".", "balancer", "filter", "client"}, why: "the SDK as a gRPC resolver", goroutines: true},
	{path: "client/grpcserver", may: []string{".", "client"}, why: "a gRPC server in the registry", goroutines: true},
	{path: "clustertest", may: []string{"*"}, why: "N real nodes in one process", goroutines: true},
	{path: "chaos", may: []string{"*"}, why: "faults on real processes, and checked histories", goroutines: true},
	{path: "cmd/muster", may: []string{"*"}, why: "the binary", goroutines: true},
}

// banned are imports that only some rooms may use, with the reason.
var banned = []struct {
	prefix string
	only   []string
	why    string
}{
	{"github.com/hashicorp/memberlist", []string{"cluster"}, "gossip is the cluster's business"},
	{"github.com/hashicorp/raft-boltdb", []string{"cluster/logstore", "bench", "*test"}, "the log store stands behind one wrapper"},
	{"github.com/hashicorp/raft", []string{"cluster", "cluster/logstore", "cluster/peer", "fsm", "bench", "clustertest", "*test"}, "only the state machine's types leave the cluster; bench measures the bare library"},
	{"github.com/gorilla/mux", []string{"httpapi"}, "routes live in one table"},
	{"github.com/boltdb/bolt", nil, "the archived bolt: use go.etcd.io/bbolt"},
	{"google.golang.org/grpc/resolver", []string{"client/grpcresolver"}, "gRPC's resolver stays in one place"},
	{"log", []string{"cluster"}, "use log/slog; the libraries' loggers are adapted in the cluster"},
	{"math/rand", []string{"*test"}, "use math/rand/v2"},
}

func rooms(t *testing.T) map[string][]string {
	t.Helper()
	files := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "examples" || name == "scripts") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			files[filepath.ToSlash(filepath.Dir(path))] = append(files[filepath.ToSlash(filepath.Dir(path))], path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func row(path string) *room {
	for i := range house {
		if house[i].path == path {
			return &house[i]
		}
	}
	return nil
}

func parse(t *testing.T, path string) (*ast.File, *token.FileSet) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return f, fset
}

// TestArrows holds the imports of every room, tests included, against the house.
func TestArrows(t *testing.T) {
	for dir, files := range rooms(t) {
		r := row(dir)
		if r == nil {
			t.Errorf("%s is no room of the house: give it a row in house_test.go and ARCHITECTURE.md, or move its code", dir)
			continue
		}
		for _, path := range files {
			f, _ := parse(t, path)
			for _, imp := range f.Imports {
				name, err := strconv.Unquote(imp.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				checkImport(t, r, path, name)
			}
		}
	}
}

func checkImport(t *testing.T, r *room, path, name string) {
	t.Helper()
	if name == module || strings.HasPrefix(name, module+"/") {
		to := strings.TrimPrefix(strings.TrimPrefix(name, module), "/")
		if to == "" {
			to = "."
		}
		if to != r.path && !slices.Contains(r.may, to) && !slices.Contains(r.may, "*") {
			t.Errorf("%s: %s may not import %s (allowed: %v)", path, r.path, to, r.may)
		}
		if to == "cmd/muster" || to == "clustertest" && !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s: nothing imports %s", path, to)
		}
		return
	}
	for _, b := range banned {
		if name != b.prefix && (!strings.Contains(b.prefix, ".") || !strings.HasPrefix(name, b.prefix+"/")) {
			continue
		}
		isTest := strings.HasSuffix(path, "_test.go")
		if !slices.Contains(b.only, r.path) && !(isTest && slices.Contains(b.only, "*test")) {
			t.Errorf("%s: %s may not import %s: %s", path, r.path, name, b.why)
		}
		break
	}
}

// TestPackageComments asks that every room says what it is for.
func TestPackageComments(t *testing.T) {
	for dir, files := range rooms(t) {
		best := ""
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			if f, _ := parse(t, path); f.Doc != nil && len(f.Doc.Text()) > len(best) {
				best = f.Doc.Text()
			}
		}
		want := "Package "
		if strings.HasPrefix(dir, "cmd/") {
			want = "Command "
		}
		if !strings.HasPrefix(best, want) || len(best) < 120 {
			t.Errorf("%s: its package comment does not say what it is for, what it is not for and its concurrency promise: %q", dir, best)
		}
	}
}

// TestArchitectureNamesEveryRoom keeps the map true.
func TestArchitectureNamesEveryRoom(t *testing.T) {
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for dir := range rooms(t) {
		if dir != "." && !strings.Contains(string(b), "`"+dir+"`") {
			t.Errorf("ARCHITECTURE.md does not name the room `%s`", dir)
		}
	}
}

// TestNoInitNoSleepNoExit asks that nothing registers itself at start-up, that
// only rooms with a lifecycle start goroutines, that nobody sleeps to wait for a
// state and that only main ends the process.
func TestNoInitNoSleepNoExit(t *testing.T) {
	for dir, files := range rooms(t) {
		r := row(dir)
		if r == nil {
			continue // TestArrows says so
		}
		for _, path := range files {
			f, fset := parse(t, path)
			isTest := strings.HasSuffix(path, "_test.go")
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if n.Name.Name == "init" && n.Recv == nil {
						t.Errorf("%s: init is not for us", fset.Position(n.Pos()))
					}
				case *ast.GoStmt:
					if !r.goroutines && !isTest {
						t.Errorf("%s: %s starts no goroutine", fset.Position(n.Pos()), dir)
					}
				case *ast.CallExpr:
					checkCall(t, fset, n, dir, isTest)
				}
				return true
			})
		}
	}
}

func checkCall(t *testing.T, fset *token.FileSet, n *ast.CallExpr, dir string, isTest bool) {
	t.Helper()
	sel, ok := n.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return
	}
	switch x.Name + "." + sel.Sel.Name {
	case "time.Sleep":
		if !sleepsInBubble(fset.Position(n.Pos()).Filename, isTest) {
			t.Errorf("%s: wait for the state, do not sleep", fset.Position(n.Pos()))
		}
	case "os.Exit", "log.Fatal":
		if !strings.HasPrefix(dir, "cmd/") && !isTest {
			t.Errorf("%s: only main ends the process", fset.Position(n.Pos()))
		}
	}
}

// sleepsInBubble reports whether a test file runs in virtual time, where
// time.Sleep is how time passes.
func sleepsInBubble(path string, isTest bool) bool {
	if !isTest {
		return false
	}
	b, err := os.ReadFile(path)
	return err == nil && strings.Contains(string(b), "testing/synctest")
}
