package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
)

// BenchmarkSessions keeps 1,000 instances with the default TTL of 15 s registered by
// one client on three nodes, and reports what that costs this process: the share of a
// core, over a TTL after all were registered.
func BenchmarkSessions(b *testing.B) {
	const count = 1000
	nodes := newCluster(b, 3)
	var addrs []string
	for _, p := range nodes {
		p.start()
		addrs = append(addrs, p.url)
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	c, err := client.New(client.Config{Addrs: addrs})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var all []*client.Session
	for n := range count {
		s, err := c.Register(b.Context(), muster.Instance{Service: fmt.Sprintf("web-%d", n%10), ID: fmt.Sprintf("i-%d", n), Address: "10.0.0.1", Port: 1 + n})
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, s)
	}
	for _, s := range all {
		if err := s.Await(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	settled := time.NewTimer(muster.DefaultTTL / 3) // the registrations' own work is over
	<-settled.C
	const window = muster.DefaultTTL
	began, used := time.Now(), usedBySelf(b)
	over := time.NewTimer(window)
	<-over.C
	share := (usedBySelf(b) - used).Seconds() / time.Since(began).Seconds()
	for _, s := range all {
		if st, err := s.State(); st != client.StateRegistered {
			b.Fatalf("%s is %s %v", s.Key(), st, err)
		}
	}
	b.ReportMetric(100*share, "%core")
	b.ReportMetric(0, "ns/op")
}

// usedBySelf is the processor time of this process.
func usedBySelf(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
