// Package health probes instances from the registry's own nodes and decides, on
// the leader, which of their checks pass.
//
// Every check is owned by two of the live nodes, chosen by rendezvous hashing.
// Each owner probes by itself, counts failures and successes in a row, and sends
// its opinion to the leader when that changes. The leader lets a check fail only
// when both owners see it failing, and has the transitions written to the log:
// probes that change nothing cost no log entry. A new leader knows no opinions;
// the owners send theirs again, and until both have spoken the state stays.
//
// A probe goes to the instance's own address and nowhere else: the [Guard] looks
// at every connection once its address is known, after DNS.
//
// The package is not for leases (package lease) nor for passive ejection by the
// outcome of requests (package balancer). It knows neither raft nor the log; it is
// fed instances by Observe and hands its decisions to a Log.
//
// A Supervisor is safe for concurrent use. Machine, Damper and Owners are plain
// values that take the time as an argument.
package health
