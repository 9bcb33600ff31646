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
// with commas between them; EnvDisk is what DiskFile returns, EnvSnapshots what
// Snapshots does.
const (
	EnvBugs      = "MUSTER_FAULT"
	EnvDisk      = "MUSTER_FAULT_DISK"
	EnvSnapshots = "MUSTER_FAULT_SNAPSHOTS"
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

// Snapshots is how often raft's snapshots are to be taken, so that few writes are
// enough for one to be installed: interval, threshold and trailing entries, as in
// "2s 500 1000"; empty: as always.
func Snapshots() string { return environment().snapshots }

type settings struct {
	bugs            map[Bug]bool
	disk, snapshots string
}

var environment = sync.OnceValue(func() settings {
	s := settings{bugs: map[Bug]bool{}, disk: os.Getenv(EnvDisk), snapshots: os.Getenv(EnvSnapshots)}
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
