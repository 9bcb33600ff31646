// Package client is the Go SDK of a Muster registry: typed calls for every route,
// made of whichever node answers, sessions that keep instances registered, watches
// that keep services in memory, and an HTTP client that calls services by name.
//
//	c, err := client.New(client.Config{Addrs: []string{"10.0.1.1:7400", "10.0.1.2:7400", "10.0.1.3:7400"}})
//	s, err := c.Register(ctx, muster.Instance{Service: "web", ID: "web-1", Address: "10.0.0.5", Port: 8080})
//	w, err := c.Watch(ctx, "api")
//	v, err := w.Await(ctx) // and w.View() from then on, or w.Pick
//	resp, err := c.HTTPClient().Get("http://api/users")
//	defer c.Close()        // deregisters
//
// # Nodes
//
// A client is given the addresses of several nodes and stays with one of them until
// that fails: it cannot be reached, does not answer in time, or says that it has no
// leader, is catching up or shuts down. Then the others are asked, and the one that
// failed is set aside for a while that doubles each time. Within one cluster a read
// never shows less than an earlier answer did, whichever node gave that (min_index).
//
// # Errors
//
// Errors are a *[muster.Error] with the code the registry gave, so that
// errors.Is(err, muster.CodeFenced) works. Where no node answered the code is
// [CodeUnreachable], and nothing was carried out; or, of a write that may have
// arrived, muster.CodeOutcomeUnknown. What is safe to repeat (a registration under
// an id, a deregistration, a heartbeat, every read) was repeated before that.
//
// # Defaults
//
//	attempt of one node            3 s      Config.AttemptTimeout; a heartbeat: ttl/4, at least 250 ms
//	call without a deadline        10 s     Config.Timeout
//	pause between rounds           0–100 ms, doubling to 0–4 s (full jitter); longer where Retry-After says so
//	retry budget                   10 % of the calls, 1/s, at most 100 saved; the first round over all nodes is free
//	node set aside                 0.25–0.5 s, doubling to 30 s, or its Retry-After
//	heartbeat                      when the registry says: about ttl/3; all instances of a client together
//	registration tried again       0–200 ms, doubling to 0–5 s (full jitter)
//	end of a session               5 s      Config.StopTimeout, beside its Drain
//	watch opened again             at once on another node; where none is well 0–200 ms, doubling to 0–4 s
//	stream given up as silent      45 s; nodes send a keep-alive every 15 s
//	long polls instead of a stream 1 min, 15 s each
//	last instances, all expired    shown 1 min more, Config.HoldExpired; unexplained emptiness: until explained
//	views on disk                  off      Config.SnapshotDir; a view once a second at most, mode 0600
//	call by name                   at most 3 times, Calls.Attempts; what never reached an instance again at once
//	pause before it is repeated    0–25 ms, doubling to 0–1 s (full jitter); Retry-After of a lone instance
//	budget of its repetitions      10 % of the calls of a service, 1/s, at most 100 saved; what was not sent is free
//	one instance's time to answer  not limited, Calls.AttemptTimeout
//	second call beside a slow one  off, Calls.Hedge
//	circuit breaker, strategy      the service's settings (muster.Settings); 5 failures in a row or 33 %
//	service called by name         watched until 10 min after its last call; 1,000 of them
//	longest answer                 256 MiB
//
// It is not for building a registry, and not a proxy: a call by name goes straight
// to the instance.
//
// What a client learns of instances (in flight, latency, failures) is its own and is
// not told to the registry; ReportOutcomes does that.
//
// Where the standard variables of OpenTelemetry ask for traces (such as
// OTEL_EXPORTER_OTLP_ENDPOINT) requests to nodes and calls by name are spans of the
// program's global tracer provider, and pass the trace on; else that costs nothing.
//
// Concurrency: a Client, its Sessions and its Watches are safe for concurrent use.
// New starts nothing; goroutines begin with the first session or watch and end with
// the last; Close waits for them.
package client
