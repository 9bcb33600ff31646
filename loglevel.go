package muster

import "time"

// LogLevel is how much a node writes into its log, as GET /v1/node/log-level shows it.
type LogLevel struct {
	// Node is the id of the node; the level is its own, not the cluster's.
	Node string `json:"node"`
	// Level is debug, info, warn or error, Configured what the node was started with.
	Level      string `json:"level"`
	Configured string `json:"configured"`
	// Until is when Level gives way to Configured; zero where nothing is to.
	Until time.Time `json:"until,omitzero"`
}

// The bounds of how long a log level that was set at run time may hold.
const (
	MinLogLevelFor = time.Second
	MaxLogLevelFor = 24 * time.Hour
)

// LogLevels are the names of the levels, from the most to the least that is written.
var LogLevels = []string{"debug", "info", "warn", "error"}
