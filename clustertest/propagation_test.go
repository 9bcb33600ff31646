package clustertest_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/muster-registry/muster/clustertest"
)

// BenchmarkPropagation: from the start of a registration on one node to the answer
// of a long poll on another that waits for the service, and to the registration's
// own answer, with one change at a time.
func BenchmarkPropagation(b *testing.B) {
	c := clustertest.Start(b, 3, clustertest.Profile("default"))
	leader := c.Leader()
	followers := c.Followers(leader)
	for name, nodes := range map[string][2]*clustertest.Member{
		"leader to follower":   {leader, followers[0]},
		"follower to leader":   {followers[0], leader},
		"follower to follower": {followers[0], followers[1]},
	} {
		b.Run(name, func(b *testing.B) {
			client := newClient()
			defer client.CloseIdleConnections()
			var told, written []time.Duration
			for n := range 200 {
				service := fmt.Sprintf("/v1/services/%s-%d", nodes[0].Name+nodes[1].Name, n)
				resp, _, err := nodes[1].Request("GET", service, "", nil)
				if err != nil || resp.StatusCode != http.StatusNotFound {
					b.Fatal(resp, err)
				}
				heard := make(chan time.Time, 1)
				go func() {
					if err := send(client, "GET", nodes[1].URL()+service+"?wait=30s&index="+resp.Header.Get("Muster-Index"), "", 200); err != nil {
						b.Error(err)
					}
					heard <- time.Now()
				}()
				began := time.Now()
				if err := send(client, "PUT", nodes[0].URL()+service+"/instances/i", body, 201); err != nil {
					b.Fatal(err)
				}
				written = append(written, time.Since(began))
				told = append(told, (<-heard).Sub(began))
			}
			for name, all := range map[string][]time.Duration{"told": told, "written": written} {
				slices.Sort(all)
				b.ReportMetric(all[len(all)/2].Seconds()*1000, name+"_median_ms")
				b.ReportMetric(all[len(all)*99/100].Seconds()*1000, name+"_p99_ms")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkLinearizable: linearizable reads of a service of 10 instances on a
// follower, which asks the leader, which asks a majority, against local reads of the
// same on the same node.
func BenchmarkLinearizable(b *testing.B) {
	c := clustertest.Start(b, 3, clustertest.Profile("default"))
	follower := c.Followers(c.Leader())[0]
	fill(b, c, 1, 10)
	url := follower.URL() + "/v1/services/fill-0"
	client := newClient()
	defer client.CloseIdleConnections()
	compare(b, func() float64 {
		return rate(b, 64, func(int, int) error { return send(client, "GET", url+"?consistency=linearizable", "", 200) })
	}, func() float64 {
		return rate(b, 64, func(int, int) error { return send(client, "GET", url, "", 200) })
	})
}
