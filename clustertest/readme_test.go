package clustertest_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/clustertest"
)

// TestReadmeProgram builds the Go program of the README as it stands there, but for
// the addresses, and runs it against a cluster.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```go\npackage main\n")
	program, _, found := strings.Cut("package main\n"+rest, "```")
	if !found {
		t.Fatal("the README has no Go program")
	}
	c := clustertest.Start(t, 3)
	for n, addr := range []string{"127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7420"} {
		if !strings.Contains(program, addr) {
			t.Fatalf("the program does not name %s", addr)
		}
		program = strings.Replace(program, addr, strings.TrimPrefix(c.Members[n].URL(), "http://"), 1)
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*clustertest.Patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("building it: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, binary)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"registering <nil>", "registered <nil>", "draining <nil>", "ended <nil>"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it printed %q (%v), want %q", lines.Text(), lines.Err(), want)
		}
		if want != "registered <nil>" {
			continue
		}
		if i, err := newSDK(t, c).Instance(ctx, "web", "web-1", client.Linearizable()); err != nil || !i.Routable {
			t.Errorf("it is registered as %+v %v", i, err)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	var v muster.View
	clustertest.MustDecode(t, c.Members[0].MustDo("GET", "/v1/services/web?consistency=linearizable", "", 200), &v)
	if v.EmptyReason != muster.EmptyDeregistered {
		t.Errorf("after its end: %+v", &v)
	}
}

// TestReadmeFragments compiles the pieces of Go in the README as they stand there, in
// the places that they are meant for.
func TestReadmeFragments(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	source.WriteString(`package main

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"

	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/client/grpcresolver"
	"github.com/muster-registry/muster/client/grpcserver"
)

var (
	ctx      context.Context
	c        *client.Client
	session  *client.Session
	listener net.Listener
	creds    grpc.DialOption
	err      error
	_        = fmt.Println
	_        = grpcresolver.New
	_        = grpcserver.New
)

func main() {}
`)
	declared := regexp.MustCompile(`(?m)^(\w+)(?:, (\w+))? :=`)
	count := 0
	for _, block := range strings.Split(string(readme), "```go\n")[1:] {
		code, _, _ := strings.Cut(block, "```")
		if strings.HasPrefix(code, "package ") {
			continue // TestReadmeProgram runs it
		}
		count++
		fmt.Fprintf(&source, "\nfunc fragment%d() {\n%s", count, code)
		for _, names := range declared.FindAllStringSubmatch(code, -1) {
			for _, name := range names[1:] {
				if name != "" {
					fmt.Fprintf(&source, "_ = %s\n", name)
				}
			}
		}
		source.WriteString("}\n")
	}
	if count < 4 {
		t.Fatalf("the README has %d pieces of Go", count)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "main.go")
	if err := os.WriteFile(path, []byte(source.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*clustertest.Patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "vet", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, source.String())
	}
}
