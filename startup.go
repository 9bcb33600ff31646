package muster

import "fmt"

// Startup is what a node is busy with that does not answer reads yet. The zero Startup
// is that of a node that does.
type Startup struct {
	// Stage says what in words: "checking the log", "waiting for a leader".
	Stage string
	// Done of Total are done, in Unit; Total is 0 where it is not known.
	Done, Total uint64
	Unit        string
}

// String says it in half a line.
func (s Startup) String() string {
	if s.Total == 0 {
		return s.Stage
	}
	return fmt.Sprintf("%s, %d of %d %s", s.Stage, min(s.Done, s.Total), s.Total, s.Unit)
}
