// Package balancer chooses one instance of a service, and learns from what became
// of its choices: how many requests are in flight where, who is slow, who fails.
//
// A [Balancer] picks from a [muster.View]. What a strategy needs of a view (who
// may be picked, a schedule, a hash table) is built once for each view and shared;
// a pick then costs the same with ten instances as with a hundred thousand
// (rendezvous excepted), allocates nothing and takes no lock. What is learnt
// belongs to the instance and outlives the view: counters, latency and a circuit
// breaker that keeps a failing instance out for a while. Balancers exchange what
// they learnt, so that an instance found sick by one node is avoided by all.
//
// Who may be picked:
//
//   - routable instances (up, with a weight) that are not suspect and not ejected;
//   - where those are fewer than the service's panic threshold allows, whoever is
//     up, suspect, ejected or down by a check, and the choice says so; but not a
//     single candidate that is down by its check;
//   - where there is no panic and yet nobody, a suspect or an ejected one;
//   - never one in maintenance, draining, unknown, expired, or of weight 0.
//
// It is not a health checker and never changes a status of the registry. It sends
// nothing: packets go in and out as bytes. It starts no goroutine and reads no
// clock: now is an argument, and what expires does so when somebody next asks.
//
// Concurrency: a Balancer is safe for concurrent use. The time given to it should
// not run backwards by much; times with a monotonic reading keep it from noticing
// a change of the wall clock.
package balancer
