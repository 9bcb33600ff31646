// Package node assembles one whole node of a registry from a configuration: the
// state machine, the cluster, the front desk and the HTTP server. "muster server",
// "muster dev" and the tests all start the same Node, so that what is tested is
// what runs.
//
// It is wiring and the order of starting and stopping; it decides nothing else.
// New starts nothing; Run returns when every goroutine of the node has ended. A
// Node's methods are safe for concurrent use.
package node
