package cluster

import (
	"fmt"

	"github.com/muster-registry/muster/cluster/logstore"
)

// The exit codes a node ends with, as in sysexits.h.
const (
	exitCorrupt = logstore.ExitCorrupt // what is stored does not read back
	exitIO      = logstore.ExitIO      // the disk refuses to store
	exitConfig  = logstore.ExitInUse   // the operator has to decide something
)

// exitErrorf makes an error that carries an exit code.
func exitErrorf(code int, format string, args ...any) error {
	return &logstore.ExitError{Code: code, Err: fmt.Errorf(format, args...)}
}
