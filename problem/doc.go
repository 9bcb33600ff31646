// Package problem turns coded errors into RFC 9457 application/problem+json and
// back. Server and client share it, so that the *muster.Error a room of the
// server returned is the *muster.Error a program meets at the other end.
//
// It holds the one table of codes, HTTP statuses and titles. It is not a logger
// and shows nobody an internal cause. Everything in it is safe for concurrent
// use.
package problem
