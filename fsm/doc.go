// Package fsm holds the replicated state of a Muster registry as a function:
// state and log entry give state, results and events. It implements raft's
// BatchingFSM, the operations that entries are made of and their codec, the
// copy-on-write views that everybody reads, and the format of snapshots.
//
// It is not the place for anything that two nodes could see differently: it
// reads no clock, no environment and no random source, opens no file and no
// connection, starts no goroutine and takes no flag that shapes the state. It
// does not validate what clients send (package registry does, before it
// proposes) and it never decides by itself that a lease ran out (the lease
// keeper of the leader does, and proposes it).
//
// Concurrency: one goroutine, raft's, calls Apply, ApplyBatch, Snapshot and
// Restore. All other methods may be called from any goroutine. View, Watch,
// Services, Index and Applied never wait for the writer; Lease, Leases, Events,
// MemberBoot, MemberRemoved, Hash and Backup wait at most for the batch that is
// being applied. Listeners are called on raft's goroutine, after the views of a
// batch are published and with no lock held, so that they may read the state.
package fsm
