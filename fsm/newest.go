//go:build !nextlevel

package fsm

// What the newest level has brought. A build with the tag nextlevel (newest_next.go)
// is one level ahead, for the tests of upgrades.

const (
	newestLevel = baseLevel
	// kindNewest is the operation of the newest level, in a build that has one.
	kindNewest kind = 0
)

// readNewest reads an operation of the newest level; nil where k is none.
func readNewest(kind, *decoder) applier { return nil }

// renew is an operation as the newest level writes it.
func renew(op []byte, _ uint64) []byte { return op }
