// Package lease knows who was last heard from and when, and ends the leases of
// those who were not: the shadow table every node keeps, renewal by a majority in
// memory, the keeper that expires leases while its node leads, and the governor
// that holds back a mass loss. DESIGN.md beside it explains the protocol.
//
// It is not the place for what a lease is (package fsm holds ids, TTLs,
// generations and what hangs on them), nor for consensus (package cluster): it
// decides, and proposes through Deps.Log. Nothing here is written to disk, and no
// decision stands on a wall clock but the end of an override.
//
// Concurrency: a Keeper is safe for concurrent use. Table is too. Governor and
// the model of time in both are data: now is an argument, a duration since an
// origin of the caller's on a clock that never steps. New starts nothing; Run
// and the sessions it is given return once all their goroutines have.
package lease
