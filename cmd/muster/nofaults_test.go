//go:build !faults

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestNoFaultsAreBuiltIn looks for the code of room fault in this program, which
// holds all rooms as the release does: the compiler has removed it.
func TestNoFaultsAreBuiltIn(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	room := strings.Repeat("github.com/muster-registry/muster/%.", 1) // put together here, lest it be found
	if !bytes.Contains(program, []byte(strings.Replace(room, "%", "fsm", 1))) {
		t.Fatal("not even the state machine is found: this test looks for the wrong thing")
	}
	if at := bytes.Index(program, []byte(strings.Replace(room, "%", "fault", 1))); at >= 0 {
		t.Errorf("room fault is built in: %q", program[at:min(at+80, len(program))])
	}
}
