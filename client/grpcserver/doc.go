// Package grpcserver is the other end of package grpcresolver: a gRPC server whose
// health is that of its registration, and which leaves without losing a call.
//
//	server := grpc.NewServer(grpcserver.Options()...)
//	users.RegisterUserServiceServer(server, &service{})
//	s, err := grpcserver.New(server, grpcserver.Config{})
//	session, err := c.Register(ctx, muster.Instance{
//		Service: "users", ID: id, Address: host, Port: port,
//		Checks: []muster.Check{{Type: muster.CheckGRPC}},
//	}, client.Drain(time.Second))
//	err = s.Serve(listener, session) // returns after ctx has ended, and the last call
//
// # Health
//
// [New] adds the standard service grpc.health.v1 to the server. It answers for the
// server as a whole ("") and for each service that is registered on it, so that the
// registry's own checks of type grpc work, and gRPC's client-side health checking
// (healthCheckConfig in a service config, which names "" or a service).
//
//	session                    answer
//	registering, registered    SERVING
//	lost                       SERVING: a registry that is away stops nobody's traffic
//	draining                   NOT_SERVING
//	fenced, ended              NOT_SERVING
//
// With Config.OnlyRegistered it is SERVING while registered and never else. What the
// program knows better is told by [Server.SetServing]: both have to agree.
//
// # The end
//
// When the session's context ends: NOT_SERVING, the drain of the session (weight 0,
// client.Drain), its deregistration, then GracefulStop, which waits for the calls that
// are under way, at most Config.StopTimeout. A program that calls Stop or GracefulStop
// itself ends the session by that, after the last call instead of before it.
//
// # Traces
//
// [Options] makes spans of calls where the standard variables of OpenTelemetry ask for
// traces, and goes on with the trace of the caller (W3C Trace Context in the metadata).
//
// It does not listen, register the instance or make TLS: those are the caller's.
//
// Concurrency: a Server is safe for concurrent use. Serve waits for its goroutine.
package grpcserver
