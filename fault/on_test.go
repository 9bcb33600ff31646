//go:build faults

package fault_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/muster-registry/muster/fault"
)

// TestEnvironment asks a process of its own what the environment switches on.
func TestEnvironment(t *testing.T) {
	if os.Getenv("FAULT_TEST_SAY") != "" {
		t.Log("active:", fault.Active(), "disk:", fault.DiskFile())
		return
	}
	first := string(fault.Bugs[0].Bug)
	for _, c := range []struct{ bugs, disk, want string }{
		{"", "", "active: [] disk: \n"},
		{first, "", "active: [" + first + "] disk: \n"},
		{" " + first + ", ", "/d", "active: [" + first + "] disk: /d\n"},
		{first + ",no-such-bug", "", `there is no bug "no-such-bug"; there are: ` + first},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEnvironment$", "-test.v")
		cmd.Env = append(os.Environ(), "FAULT_TEST_SAY=1", fault.EnvBugs+"="+c.bugs, fault.EnvDisk+"="+c.disk)
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), c.want) || (err != nil) != strings.Contains(c.bugs, "no-such") {
			t.Errorf("%q %q: got %s (%v), want %q", c.bugs, c.disk, out, err, c.want)
		}
	}
}
