// Package muster holds the nouns of a Muster service registry: namespaces,
// services, instances, leases, statuses, events, queries, members, coded errors
// and the View, which is the immutable picture of one service.
//
// It is for everybody who speaks to or builds a registry: the server's rooms,
// the Go client and programs that only want the types. It is not a client (see
// package client) and does nothing by itself: apart from the memoised values of
// a View it has no goroutine, lock, I/O or clock, and all of its values are safe
// for concurrent reading once nobody writes them.
//
// The JSON names of these types are the wire contract of the HTTP API, described
// in full by /v1/openapi.yaml on every node.
package muster
