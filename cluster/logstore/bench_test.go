package logstore_test

import (
	"testing"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/muster-registry/muster/cluster/logstore"
)

// BenchmarkStoreLogs appends batches of 64 entries of 300 bytes to a Store and
// to bare raft-boltdb in turn and reports how much longer the Store takes.
func BenchmarkStoreLogs(b *testing.B) {
	s := open(b, logPath(b), logstore.Config{})
	bare, err := raftboltdb.New(raftboltdb.Options{Path: logPath(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close()
	var sealedTime, bareTime time.Duration
	var index uint64
	for b.Loop() {
		batch := entries(index+1, index+64)
		for _, l := range batch {
			l.Data = append(l.Data, make([]byte, 300-len(l.Data))...)
		}
		index += 64
		start := time.Now()
		if err := bare.StoreLogs(batch); err != nil {
			b.Fatal(err)
		}
		bareTime += time.Since(start)
		start = time.Now()
		if err := s.StoreLogs(batch); err != nil {
			b.Fatal(err)
		}
		sealedTime += time.Since(start)
	}
	n := float64(b.N)
	b.ReportMetric(float64(sealedTime.Microseconds())/n, "store-µs/batch")
	b.ReportMetric(float64(bareTime.Microseconds())/n, "bare-µs/batch")
	b.ReportMetric(float64(sealedTime)/float64(bareTime), "store/bare")
}
