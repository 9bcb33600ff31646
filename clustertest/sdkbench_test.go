package clustertest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/clustertest"
)

// BenchmarkClientPropagation: from the start of a registration by one client on one
// node until another client, which watches the service on another node, shows the
// instance, with one change at a time, slower than streams are woken.
func BenchmarkClientPropagation(b *testing.B) {
	const changes = 60
	c := clustertest.Start(b, 3, clustertest.Profile("default"))
	leader := c.Leader()
	followers := c.Followers(leader)
	for name, nodes := range map[string][2]*clustertest.Member{
		"leader to follower":   {leader, followers[0]},
		"follower to leader":   {followers[0], leader},
		"follower to follower": {followers[0], followers[1]},
	} {
		b.Run(name, func(b *testing.B) {
			of := func(m *clustertest.Member) *client.Client {
				return newSDK(b, c, func(cfg *client.Config) { cfg.Addrs = []string{m.URL()} })
			}
			writer, reader := of(nodes[0]), of(nodes[1])
			i := webInstance("first", time.Minute)
			i.Service = "web-" + nodes[0].Name + nodes[1].Name
			if _, err := writer.PutInstance(b.Context(), &i); err != nil {
				b.Fatal(err)
			}
			w, err := reader.Watch(b.Context(), i.Service)
			if err != nil {
				b.Fatal(err)
			}
			last, err := w.Await(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			pace := time.NewTicker(75 * time.Millisecond)
			defer pace.Stop()
			var shown []time.Duration
			for n := range changes {
				<-pace.C
				i.ID = fmt.Sprintf("i-%d", n)
				began := time.Now()
				written := make(chan error, 1)
				go func() {
					_, err := writer.PutInstance(b.Context(), &i)
					written <- err
				}()
				for last.Find(i.ID) == nil {
					if last, err = w.Next(b.Context(), last); err != nil {
						b.Fatal(err)
					}
				}
				shown = append(shown, time.Since(began))
				if err := <-written; err != nil {
					b.Fatal(err)
				}
			}
			slices.Sort(shown)
			b.ReportMetric(shown[len(shown)/2].Seconds()*1000, "shown_median_ms")
			b.ReportMetric(shown[len(shown)*99/100].Seconds()*1000, "shown_p99_ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}
