// Package bench measures a registry from outside: it sends real requests to real
// processes, over loopback or a network, and reports throughput, latency, processor
// time and memory beside floors that were measured in the same run: a bare net/http
// server that answers the same bytes, and a bare hashicorp/raft cluster.
//
// It is not for comparing builds to a few per cent: load generators and servers share
// the cores of one machine, and each other's caches. It imports nothing of the nodes;
// what it knows of them it learns over HTTP, as anybody may. Deciding what to print,
// and flags, are cmd/muster's.
//
// Concurrency: one Run at a time in a process (processor time is that of all nodes).
// Whatever Run or Start has started has ended, and its files are gone, when Run or
// Cluster.Stop returns.
package bench
