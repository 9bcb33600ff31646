// Package clustertest runs N real nodes in one process for tests: real raft on
// real files in temporary folders, real gossip and real HTTP on loopback, with
// verbs to stop, kill and restart nodes and to cut and heal the links between
// them. Faults enter through the seams that production code runs through.
//
// It is for tests only, and a Cluster not for virtual time: real sockets do not
// belong in a testing/synctest bubble. Leases are also simulated there, in this
// package's own tests: the real state machine, keeper and raft over a network and
// disks in memory, through thousands of failovers. A Cluster is used from the test's own goroutine; the
// HTTP of its nodes from any.
package clustertest
