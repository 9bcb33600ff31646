// Package watch carries what was committed to those who watch: it keeps the
// latest log entries in one bounded ring and lets any number of streams read
// along, each message once, in order and without gap, starting from a snapshot
// or from an index that was seen on any node of the cluster.
//
// A [Stream] is a cursor into the ring and not a queue. A reader that is slow
// costs nothing and delays nobody; one that the ring has overtaken is told so,
// and given full views again ("resync"). What a change looks like on the wire is
// encoded once, however many streams it goes to.
//
// It is not the place for long polls (they wait on the views of package fsm), nor
// for HTTP: package httpapi sets deadlines, flushes and counts connections, and
// gets its bytes from a Stream. It decides nothing about what is registered.
//
// # Indexes
//
// A batch of entries is applied and its views are published; after that the Hub
// is told ([Hub.Applied]). The index of the Hub is that of the last batch it was
// told. A synced message has an index S such that every view before it shows its
// service exactly as it was at S: all events up to S are in it and none after.
// The changes that follow are those with an index above S, and so are those that
// another node sends to a stream resumed from S. A view that was published but
// whose batch the Hub has not been told yet would break that; cut.go says how it
// is mended. All events of one entry are in one change, so that an index never
// stands for a part of an entry.
//
// # Wakes
//
// The writer only appends, and remembers which services are touched. [Hub.Run]
// wakes whoever asked for them, at most once in MinWakeInterval a service: there
// and only there is coalescing, and since a wake carries nothing, none is lost by
// leaving it out: the stream reads on from its cursor.
//
// # Concurrency
//
// A Hub is safe for concurrent use, but Applied is for one goroutine, the
// writer's; it waits for no reader. A Stream belongs to one goroutine. New starts
// nothing; Run starts no goroutine and returns once all streams were told to go.
package watch
