// Package httpapi is the HTTP face of a Muster node: the routes of /v1, the
// decoding of what comes in, the rendering of what goes out, long polls, streams,
// probes and the description of it all in openapi.yaml.
//
// It holds no rule of the registry's: a handler decodes, makes one call to a
// [Registry], [Watches] or a [Cluster], and renders the outcome. It knows nothing of raft,
// gossip or storage, and it is not a client (see package client).
//
// Every route stands in one literal table (routes.go) with the permission it
// asks for and the query parameters it takes; a test holds the table and
// openapi.yaml together. Handlers of one resource share a file.
//
// A [Server] is safe for concurrent use. [New] starts nothing; [Server.Run]
// returns when all its goroutines have.
package httpapi
