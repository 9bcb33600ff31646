// Package peer is the one port on which the members of a cluster speak to each
// other. Every connection begins with a hello in both directions (who is there,
// of which cluster, in which incarnation) and is then one of two kinds: a raft
// stream, handed to raft's network transport, or a carrier of internal calls,
// served as HTTP/2 without TLS and without negotiation.
//
// It is for package cluster only, which decides who is admitted and what the
// calls mean. It is not a public API, keeps no opinion about membership, never
// retries a call and never reads an address book: it dials what it is told.
//
// A Port, a Transport and Links may be used by any number of goroutines at once.
// A Port listens from New on and serves while Run runs; Run returns when every
// connection, dial and handler of the port has ended.
package peer
