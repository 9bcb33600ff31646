package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNotify is a service manager that starts two of three nodes and listens to the
// first.
func TestNotify(t *testing.T) {
	dir, err := os.MkdirTemp("", "muster") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var said []string
	await := func(any ...string) {
		t.Helper()
		buf := make([]byte, 4096)
		for {
			n, err := socket.Read(buf)
			if err != nil {
				t.Fatalf("waiting for %q: %v; said so far: %q", any, err, said)
			}
			said = append(said, string(buf[:n]))
			for _, what := range any {
				if strings.Contains(said[len(said)-1], what) {
					return
				}
			}
		}
	}
	nodes := newCluster(t, 3)
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	nodes[0].start()
	await("READY=1") // alone: it must not wait for the others
	await("STATUS=waiting for a leader")
	os.Unsetenv("NOTIFY_SOCKET")
	nodes[1].start()
	nodes[2].start()
	nodes[0].waitReady("?require=leader")
	await("STATUS=leads ", "STATUS=follows ")
	nodes[0].signal(syscall.SIGTERM)
	await("STOPPING=1")
	if code := nodes[0].wait(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	ready := 0
	for _, s := range said {
		ready += strings.Count(s, "READY=1")
	}
	if ready != 1 {
		t.Errorf("it said %d times that it is ready: %q", ready, said)
	}
	// A socket that is not there keeps no node from running.
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "gone"))
	nodes[0].start()
	nodes[0].waitReady("")
	if !strings.Contains(nodes[0].log.String(), "cannot tell the service manager") {
		t.Error("it does not say that nobody listens")
	}
}
