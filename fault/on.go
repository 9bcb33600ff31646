//go:build faults

package fault

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// On reports whether bugs are built in.
const On = true

// The environment that a build with bugs heeds: EnvBugs names those to switch on,
// with commas between them; EnvDisk is what DiskFile returns.
const (
	EnvBugs = "MUSTER_FAULT"
	EnvDisk = "MUSTER_FAULT_DISK"
)

// Is reports whether a bug is switched on. It panics when the environment names one
// that does not exist: a typo must not pass for a bug that nobody notices.
func Is(b Bug) bool { return environment().bugs[b] }

// Active is the bugs that are switched on, in the order of Bugs.
func Active() (active []Bug) {
	for _, r := range Bugs {
		if Is(r.Bug) {
			active = append(active, r.Bug)
		}
	}
	return active
}

// DiskFile is the file that says what is wrong with this process's disk; empty:
// nothing is. What it may hold stands in cluster/logstore.
func DiskFile() string { return environment().disk }

type settings struct {
	bugs map[Bug]bool
	disk string
}

var environment = sync.OnceValue(func() settings {
	s := settings{bugs: map[Bug]bool{}, disk: os.Getenv(EnvDisk)}
	for name := range strings.SplitSeq(os.Getenv(EnvBugs), ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		r := Find(name)
		if r == nil {
			panic(fmt.Sprintf("%s: there is no bug %q; there are: %s", EnvBugs, name, strings.Join(Names(), ", ")))
		}
		s.bugs[r.Bug] = true
	}
	return s
})
