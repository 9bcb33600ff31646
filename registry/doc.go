// Package registry is the front desk of a node: it checks what is asked for,
// turns writes into operations of the state machine, proposes them through the
// cluster, and answers reads from the node's own copy of the state once that
// copy is as current as the caller wants.
//
// It is not the state (package fsm), not the consensus (package cluster) and not
// a protocol (package httpapi). It starts no goroutine and opens no socket, keeps
// nothing of its own but a cache of compiled filters, and is safe for concurrent
// use.
package registry
