package muster

import (
	"context"
	"time"
)

// Caller is who asks for a write, and why; both are kept in the journal.
type Caller struct {
	// Actor is "ip:<client>" as the edge node saw it, "node:<id>" or a token's name.
	Actor string
	// Reason is the caller's own ?reason=, at most MaxReasonLen bytes.
	Reason string
}

// Condition makes a write depend on what is stored. The zero Condition always holds.
type Condition struct {
	// Absent asks that there is no such instance (If-None-Match: *).
	Absent bool
	// ModifyIndex asks that the instance was last changed at this index, and at
	// this Place of it unless Place is negative (If-Match). 0 asks nothing.
	ModifyIndex uint64
	Place       int
}

// IsZero reports whether c always holds.
func (c Condition) IsZero() bool { return !c.Absent && c.ModifyIndex == 0 }

// ReadOptions says how current an answer has to be. The zero ReadOptions takes
// what the node has.
type ReadOptions struct {
	// Linearizable asks for every write that was acknowledged before the read began.
	Linearizable bool
	// MinIndex waits until the node has applied that index.
	MinIndex uint64
	// Cursor is the index of a long poll's last answer. The read waits until the
	// node has applied it, bounded by its context alone, and answers cursor_gone
	// where it is ahead of what the leader has confirmed. 0 asks nothing.
	Cursor uint64
	// MaxStale refuses rather than be older; 0 asks nothing.
	MaxStale time.Duration
	// Wait bounds the waiting for MinIndex; 0 is MaxMinIndexWait.
	Wait time.Duration
}

// ReadInfo is how current an answer is.
type ReadInfo struct {
	// Index is the index of the view that was answered.
	Index uint64
	// Stale is how old the answer may be; 0 on a linearizable read.
	Stale time.Duration
	// Changed is closed once a repeated read may answer otherwise. It belongs to
	// the very state that was read, so that no change between the read and the
	// wait is missed. nil: the answer cannot be waited on.
	Changed <-chan struct{}
}

// Written is what became of a write.
type Written struct {
	// Index is the index of the log entry that holds it.
	Index uint64
	// Created says that the instance was not there before, Changed that the write
	// changed anything visible.
	Created, Changed bool
	// Instance is the instance after the write; nil once it is gone.
	Instance *Instance
}

// BatchItem is what became of one instance of a batch.
type BatchItem struct {
	Key InstanceKey
	Written
	// Err is nil, or an *Error.
	Err error
}

// Outcome is what became of one operation proposed to the cluster.
type Outcome struct {
	// Result is what the state machine answered, in its own encoding.
	Result []byte
	// Err is nil, or an *Error: CodeNoLeader and CodeOverloaded where the operation
	// was surely not applied, CodeOutcomeUnknown where nobody can say.
	Err error
}

type requestKey struct{}

// WithRequestID says in a context which request is being served, for the log.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestID is the id of the request that ctx serves; "" where it serves none.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}
