//go:build !faults

package fault

// On reports whether bugs are built in.
const On = false

// Is reports whether a bug is switched on.
func Is(Bug) bool { return false }

// Active is the bugs that are switched on.
func Active() []Bug { return nil }

// DiskFile is the file that says what is wrong with this process's disk; empty:
// nothing is.
func DiskFile() string { return "" }

// Snapshots is how often raft's snapshots are to be taken; empty: as always.
func Snapshots() string { return "" }
