package node

import (
	"syscall"

	"github.com/muster-registry/muster"
)

// leastReserve is how many descriptors a node keeps at least for its disk, its
// peers and its gossip.
const leastReserve = 96

// connections is how many connections of clients the node takes: as many as the
// process may open files, less a quarter. The Go runtime has raised the soft limit
// to the hard one by then.
func connections() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return muster.MaxConnections
	}
	may := min(files.Cur, 1<<30) // some systems say "any number"
	return min(muster.MaxConnections, max(16, int(may-min(may, max(may/4, leastReserve)))))
}
