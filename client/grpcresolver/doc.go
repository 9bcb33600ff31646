// Package grpcresolver finds gRPC servers in a Muster registry: muster:///web is
// service web, followed by a watch of package client, in memory, from node to node.
//
//	c, err := client.New(client.Config{Addrs: addrs, Zone: "eu-1a"})
//	conn, err := grpc.NewClient("muster:///users", append(grpcresolver.DialOptions(c),
//		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
//
// The query of a target narrows and steers: zone (preferred instead of the client's),
// namespace, port (the name of one of the instance's ports, instead of its port), and
// version, tag (repeated: all of them), meta.KEY and filter (an expression), which an
// instance must fit: muster:///users?zone=eu-1b&version=2. Any other parameter, and a
// target with an authority, is refused.
//
// # Policies
//
// [DialOptions] brings the policy named [Policy], which picks as the registry's own
// balancer does: by the strategy and the settings of the service, with weights, zones
// that spill over, least requests or latency, and a circuit breaker for each
// instance, fed by what became of the calls. The hash strategies go by [WithKey], or
// by the name of the method.
//
// Any policy of gRPC's works as well: give its service config after the options of
// DialOptions, or use [New] with grpc.WithResolvers alone. grpc.WithDefaultServiceConfig
// takes [RoundRobin] as it is. (grpc.WithBalancerName, of old examples, is no longer a
// part of grpc-go.) Policies that read endpoints find the instance, and with it weight
// and zone, by [InstanceOf]. Retries of calls are gRPC's own: a retryPolicy in the
// service config.
//
// # What is resolved
//
// The instances that are routable, or where none is those that may be alive after
// all. The list stays as it was while the registry is away, and is not replaced by an
// emptiness that nobody wanted; see client.Watch. Until something is known of the
// service its calls wait or fail as their wait-for-ready says.
//
// It is not a health checker: gRPC's own client-side health checking is switched on by
// a healthCheckConfig in the service config ({"serviceName": ""} is the server as a
// whole), for servers such as those of package grpcserver.
//
// # Traces
//
// Where the standard variables of OpenTelemetry ask for traces the calls of
// [DialOptions] are spans of the program's global tracer provider, and pass the trace
// on in their metadata; else that costs nothing.
//
// Concurrency: all functions are safe for concurrent use. A resolver's goroutine ends
// when its connection is closed, or the client.
package grpcresolver
