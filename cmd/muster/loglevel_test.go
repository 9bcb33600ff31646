package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
)

// TestLogLevelOfSome: of all nodes those that answer are set and shown, those that do
// not are named, and a script sees that not all is done.
func TestLogLevelOfSome(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	c := muster.Cluster{Members: []muster.Member{
		{Name: "n1", APIAddr: gone.Addr().String()}, {Name: "n2"}, {Name: "n3"}, {Name: "n4"},
	}}
	var asked []string
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any = c
		if r.URL.Path == "/v1/node/log-level" {
			body, _ := io.ReadAll(r.Body)
			asked = append(asked, r.Method+" "+string(body))
			answer = muster.LogLevel{Node: "n3", Level: "debug", Configured: "info"}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer node.Close()
	c.Members[2].APIAddr = node.Listener.Addr().String()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"status":503,"code":"shutting_down","detail":"this node is shutting down"}`)
	}))
	defer refusing.Close()
	c.Members[3].APIAddr = refusing.Listener.Addr().String()

	code, out, errs := command(t, "log-level", "DEBUG", "--for", "5m", "--node", "all", "--addr", node.URL)
	if code != 1 || !strings.Contains(out, "n3") || strings.Count(out, "\n") != 2 {
		t.Errorf("got the code %d and shown\n%s", code, out)
	}
	if len(asked) != 1 || asked[0] != `PUT {"for":"5m0s","level":"debug"}` {
		t.Errorf("the node that answers was asked %q", asked)
	}
	for _, want := range []string{"n1: ", "n2: the address", "n4: this node is shutting down (shutting_down)"} {
		if !strings.Contains(errs, want) {
			t.Errorf("%q is not said:\n%s", want, errs)
		}
	}
	if code, out, errs = command(t, "log-level", "--node", "n4", "--addr", node.URL); code != 1 || out != "" || !strings.Contains(errs, "(shutting_down)") {
		t.Errorf("one node that refuses: %d %q %q", code, out, errs)
	}
}
