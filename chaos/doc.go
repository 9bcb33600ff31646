// Package chaos proves what Muster promises by breaking it: it runs real muster
// processes, each in a network namespace of its own, under the load of several
// clients, injects faults (killed and stopped processes, cut and lossy links, full,
// slow and damaged disks, changes of membership, restores) by a plan that one seed
// decides, and then checks the recorded history: linearizability, watches, leases,
// the equality of the nodes after the heal, and how much of the time the cluster
// could be written to.
//
// It runs as a test, by "make chaos" or "go test ./chaos -run TestChaos -chaos.duration
// 5m"; a plain "go test" has only a short run of it. Without the rights to make network
// namespaces it runs the nodes on loopback, with faults of processes alone, and says so.
//
// It is not for production and nothing imports it. A run owns its processes,
// namespaces and mounts, under names of its own, so that several may run side by
// side; within one run a type says itself what of it may be called concurrently.
package chaos
