// Package filter narrows views of services to the instances that a query means: by
// fields, and by expressions in the language of hashicorp/go-bexpr.
//
// All who use an equal filter on a view share the narrowed view and what is derived
// from it. What is kept of users' filters is bounded: so many compiled expressions a
// node, so many narrowed views a view.
//
// It does not parse requests and chooses nobody: a picker narrows first.
//
// Concurrency: a Cache and a Filter are safe for concurrent use.
package filter
