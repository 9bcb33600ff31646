// Package logstore keeps raft's log and raft's few stable values in one bbolt
// file, by way of raft-boltdb, and adds what that lacks: a checksum on every
// entry and value, a check of the whole file before raft starts, fail-stop on a
// failed write, and a watchdog over writes that hang.
//
// It is for package cluster only. It is not a cache (raft.LogCache stands in
// front of it) and it does not repair: a log that does not read back as it was
// written ends the node, because entries that others count on must not be
// quietly dropped.
//
// A Store may be used by any number of goroutines at once. Once it has called
// Config.Fatal nothing is ever written again; see Store for what then happens to
// raft's own goroutines.
package logstore
