//go:build faults

package logstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/muster-registry/muster/cluster/logstore"
	"github.com/muster-registry/muster/fault"
)

// ordersFile is set before anybody reads the environment, which happens once.
var ordersFile = func() string {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("muster-logstore-orders-%d", os.Getpid()))
	if err := os.Setenv(fault.EnvDisk, name); err != nil {
		panic(err)
	}
	return name
}()

// TestOrders makes the disk slow, hang, well and failing by the file.
func TestOrders(t *testing.T) {
	order := func(text string) {
		if err := os.WriteFile(ordersFile+".next", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(ordersFile+".next", ordersFile); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Remove(ordersFile) })
	gaveUp := newFatal()
	s := open(t, logPath(t), logstore.Config{Fatal: gaveUp.call, HangLimit: time.Minute})
	run(t, s)
	appendLogs(t, s, 1, 1)

	order("delay 30ms\n")
	start := time.Now()
	appendLogs(t, s, 2, 2)
	if d := time.Since(start); d < 30*time.Millisecond {
		t.Errorf("a write on a slow disk took %s", d)
	}
	order("hang")
	stored := make(chan error, 1)
	go func() { stored <- s.StoreLogs(entries(3, 3)) }()
	until(t, "the write hangs", func() bool { return s.Hung() > 20*time.Millisecond })
	order("")
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	wantBounds(t, s, 1, 3)
	order("fail")
	if err := s.StoreLogs(entries(4, 4)); err == nil {
		t.Error("a write to a failing disk succeeded")
	}
	if err := gaveUp.wait(t); err == nil {
		t.Error("the store went on")
	}
}
