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
// # What is checked
//
// The clients speak plain HTTP and record every attempt, with the times at which it was
// sent and answered; what may or may not have happened is recorded as such. The log that
// the answers are held against is what the journals of all nodes say, which has to be
// the same. These are violations, by checker:
//
//   - linear: no order of the operations on a service, in which each takes effect while
//     it was under way, explains their answers (porcupine);
//   - order: a write has no higher index than one that was acknowledged before it began;
//   - acked: an acknowledged write is not in the log, a refused one is, or one twice;
//   - log: the journals of two nodes differ, or tell of what nobody asked for;
//   - state: a view, by whatever read, is not the state at its index;
//   - fresh: a read is older than it may be: linearizable, min_index, or the age it tells;
//   - watch: a stream leaves out, repeats or changes the order, across breaks and nodes;
//     or it never comes to the end;
//   - restore: what a restore brings back is not the state at one index in the time of
//     its backup;
//   - lease: one ended before its ttl after the sending of an acknowledged renewal, the
//     time aside in which nobody could work; later than is promised; or its owner was
//     told that it is gone, and was not, or the other way round;
//   - equal: in the end the nodes do not have the same;
//   - answer: an answer that the contract does not have;
//   - available: too many seconds without a write, beginnings of faults and times
//     without a majority aside.
//
// What could not be decided fails a run as well, and so does a run in which too little
// happened. A folder that a run left can be checked again: go test ./chaos -run
// TestRecheck -chaos.recheck DIR -v. Records are JSON lines; a violation names theirs by
// the number n.
//
// It is not for production and nothing imports it. A run owns its processes,
// namespaces and mounts, under names of its own, so that several may run side by
// side; within one run a type says itself what of it may be called concurrently.
package chaos
