// Package cluster is the node as a member of a cluster: it carries operations,
// opaque bytes, through raft to a StateMachine on every node, finds its peers by
// gossip, and says how current what a node knows is.
//
// It is for package node, which wires one Node, and for the rooms that hang
// their messages on it. It is not for anything that knows what an operation
// means: services, leases and HTTP are other rooms' business, and the state
// machine is only known by the interface declared here.
//
// All methods of a Node are safe for concurrent use, also before Run has begun
// and after it has ended, when they answer as a node without a leader does.
// DESIGN.md beside this file says why things happen in the order they do.
package cluster
