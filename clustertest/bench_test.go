package clustertest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
)

// The benchmarks here compare what a user gets with a floor measured in the same
// run, round by round, and report the median of the ratios: machines are noisy,
// ratios less so.

const (
	rounds      = 5
	roundLength = 2 * time.Second
	concurrency = 128
)

// rate runs fn from n goroutines for a round and returns calls per second.
func rate(b *testing.B, n int, fn func(worker, call int) error) float64 {
	b.Helper()
	var total atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for w := range n {
		wg.Go(func() {
			for call := 0; time.Since(start) < roundLength; call++ {
				if err := fn(w, call); err != nil {
					b.Errorf("worker %d: %v", w, err)
					return
				}
				total.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(total.Load()) / time.Since(start).Seconds()
}

// compare runs subject and floor in turn and reports both medians and the median of
// the ratios, by the clock and by the processor time a call took in this process,
// which other programs on the machine disturb less.
func compare(b *testing.B, subject, floor func() float64) {
	b.Helper()
	var ratios, costs, ours, floors []float64
	for range rounds {
		f, floorCost := priced(b, floor)
		s, cost := priced(b, subject)
		ratios, ours, floors = append(ratios, s/f), append(ours, s), append(floors, f)
		costs = append(costs, floorCost/cost)
	}
	b.ReportMetric(median(ours), "ops/s")
	b.ReportMetric(median(floors), "floor_ops/s")
	b.ReportMetric(median(ratios), "x_floor")
	b.ReportMetric(median(costs), "x_floor_cpu")
	b.ReportMetric(0, "ns/op")
}

// priced runs a round and returns its calls per second, and the processor time of
// each in seconds.
func priced(b *testing.B, round func() float64) (perSecond, cost float64) {
	b.Helper()
	start, used := time.Now(), processorTime(b)
	perSecond = round()
	return perSecond, (processorTime(b) - used).Seconds() / (perSecond * time.Since(start).Seconds())
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 512, DisableCompression: true}}
}

// send sends a request and reads the answer to its end.
func send(client *http.Client, method, url, body string, want int) error {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("%s %s: %d %s", method, url, resp.StatusCode, text)
	}
	return err
}

// BenchmarkRegister: registrations of new instances over HTTP at concurrency 128
// spread over three nodes, against Apply of 300-byte entries on a bare
// hashicorp/raft cluster of three on raft-boltdb at the same concurrency.
func BenchmarkRegister(b *testing.B) {
	c := clustertest.Start(b, 3, clustertest.Profile("default"))
	bare := newBareRaft(b)
	client := newClient()
	defer client.CloseIdleConnections()
	payload := make([]byte, 300)
	var seq atomic.Int64
	compare(b, func() float64 {
		return rate(b, concurrency, func(w, _ int) error {
			n := seq.Add(1)
			url := fmt.Sprintf("%s/v1/services/bench-%d/instances/i-%d", c.Members[w%3].URL(), n%1000, n)
			return send(client, "PUT", url, `{"address":"10.0.0.5","port":8080,"ttl":"none","version":"1.4.2","zone":"eu-1a","meta":{"team":"pay"}}`, 201)
		})
	}, func() float64 {
		return rate(b, concurrency, func(int, int) error { return bare.Apply(payload, 10*time.Second).Error() })
	})
}

// BenchmarkRead: local reads of a service of 10, 100 and 1,000 instances against
// a bare net/http handler that writes the same bytes.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := clustertest.Start(b, 1)
			fill(b, c, 1, size)
			url := c.Members[0].URL() + "/v1/services/fill-0"
			client := newClient()
			defer client.CloseIdleConnections()
			bytes := c.Members[0].MustDo("GET", "/v1/services/fill-0", "", 200)
			floorURL := bareHandler(b, []byte(bytes))
			compare(b, func() float64 {
				return rate(b, 64, func(int, int) error { return send(client, "GET", url, "", 200) })
			}, func() float64 {
				return rate(b, 64, func(int, int) error { return send(client, "GET", floorURL, "", 200) })
			})
		})
	}
}

// BenchmarkPick: picks from a service of 10 and 1,000 instances against two bare
// net/http handlers: one writes the same body, and one the same answer, with the
// headers that every answer of the API carries. The body is so small
// that they count.
func BenchmarkPick(b *testing.B) {
	for _, size := range []int{10, 1000} {
		c := clustertest.Start(b, 1)
		fill(b, c, 1, size)
		url := c.Members[0].URL() + "/v1/services/fill-0/pick"
		client := newClient()
		defer client.CloseIdleConnections()
		resp, text, err := c.Members[0].Request("GET", "/v1/services/fill-0/pick", "", nil)
		if err != nil || resp.StatusCode != 200 {
			b.Fatalf("%v %s", err, text)
		}
		for name, floorURL := range map[string]string{
			"body": bareHandler(b, []byte(text)), "answer": bareAnswer(b, resp.Header, []byte(text)),
		} {
			b.Run(fmt.Sprintf("%d/%s", size, name), func(b *testing.B) {
				compare(b, func() float64 {
					return rate(b, 64, func(int, int) error { return send(client, "GET", url, "", 200) })
				}, func() float64 {
					return rate(b, 64, func(int, int) error { return send(client, "GET", floorURL, "", 200) })
				})
			})
		}
	}
}

// BenchmarkHeartbeat: single heartbeats over HTTP at concurrency 128 for 10,000
// leases, spread over three nodes, against a bare net/http handler that answers
// the same bytes.
func BenchmarkHeartbeat(b *testing.B) {
	c := clustertest.Start(b, 3, clustertest.Profile("default"))
	fillTTL(b, c, 100, 100, "10m")
	client := newClient()
	defer client.CloseIdleConnections()
	floorURL := bareHandler(b, []byte(`{"ttl":"10m0s","next":"3m20s"}`))
	var seq atomic.Int64
	compare(b, func() float64 {
		return rate(b, concurrency, func(w, _ int) error {
			n := seq.Add(1) % 10_000
			url := fmt.Sprintf("%s/v1/services/fill-%d/instances/i-%d-%d/heartbeat", c.Members[w%3].URL(), n/100, n/100, n%100)
			return send(client, "PUT", url, "", 200)
		})
	}, func() float64 {
		return rate(b, concurrency, func(int, int) error { return send(client, "PUT", floorURL, "", 200) })
	})
}

// BenchmarkHeartbeatBatch: renewals in batches of 1,000 leases.
func BenchmarkHeartbeatBatch(b *testing.B) {
	c := clustertest.Start(b, 3, clustertest.Profile("default"))
	fillTTL(b, c, 100, 100, "10m")
	client := newClient()
	defer client.CloseIdleConnections()
	var bodies []string
	for batch := range 10 {
		var v muster.Heartbeats
		for s := range 10 {
			for n := range 100 {
				i, ok := c.Members[0].Node().State().LeaseOf(muster.InstanceKey{
					Namespace: "default", Service: fmt.Sprintf("fill-%d", batch*10+s), ID: fmt.Sprintf("i-%d-%d", batch*10+s, n),
				})
				if !ok {
					b.Fatal("an instance has no lease")
				}
				v.Leases = append(v.Leases, i)
			}
		}
		text, err := json.Marshal(v)
		if err != nil {
			b.Fatal(err)
		}
		bodies = append(bodies, string(text))
	}
	var got []float64
	for range rounds {
		got = append(got, 1000*rate(b, 16, func(w, call int) error {
			return send(client, "POST", c.Members[w%3].URL()+"/v1/heartbeats", bodies[(w+call)%10], 200)
		}))
	}
	b.ReportMetric(median(got), "renewals/s")
	b.ReportMetric(0, "ns/op")
}

// fill registers services of size instances each, in batches of 500.
func fill(b *testing.B, c *clustertest.Cluster, services, size int) {
	b.Helper()
	fillTTL(b, c, services, size, "none")
}

func fillTTL(b *testing.B, c *clustertest.Cluster, services, size int, ttl string) {
	b.Helper()
	var items []string
	batches := make(chan string, 8)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for body := range batches {
				c.Members[w%len(c.Members)].MustDo("POST", "/v1/batch/register", body, 200)
			}
		})
	}
	flush := func() {
		if len(items) > 0 {
			batches <- `{"instances":[` + strings.Join(items, ",") + `]}`
			items = items[:0]
		}
	}
	for s := range services {
		for n := range size {
			items = append(items, fmt.Sprintf(`{"service":"fill-%d","id":"i-%d-%d","address":"10.%d.%d.%d","port":8080,"ttl":%q,"version":"1.4.2","zone":"eu-1a","tags":["canary"],"meta":{"team":"pay"}}`,
				s, s, n, s%250, n/250, n%250, ttl))
			if len(items) == muster.MaxBatchItems {
				flush()
			}
		}
	}
	flush()
	close(batches)
	wg.Wait()
}

// bareHandler serves bytes with nothing but net/http.
func bareHandler(b *testing.B, bytes []byte) string {
	b.Helper()
	return bareAnswer(b, http.Header{"Content-Type": {"application/json"}}, bytes)
}

// bareAnswer serves headers and bytes with nothing but net/http.
func bareAnswer(b *testing.B, header http.Header, bytes []byte) string {
	b.Helper()
	header.Del("Date") // which net/http adds
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), header)
		w.Write(bytes)
	})}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	b.Cleanup(func() { srv.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

type discardFSM struct{}

func (discardFSM) Apply(*raft.Log) any                 { return nil }
func (discardFSM) Snapshot() (raft.FSMSnapshot, error) { return discardFSM{}, nil }
func (discardFSM) Restore(r io.ReadCloser) error       { return r.Close() }
func (discardFSM) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (discardFSM) Release()                            {}

// newBareRaft starts three hashicorp/raft nodes on raft-boltdb over TCP, as its
// own documentation would, and returns the leader.
func newBareRaft(b *testing.B) *raft.Raft {
	b.Helper()
	dir := b.TempDir()
	var nodes []*raft.Raft
	var servers []raft.Server
	type part struct {
		conf  *raft.Config
		trans *raft.NetworkTransport
		store *raftboltdb.BoltStore
		snaps raft.SnapshotStore
	}
	var parts []part
	for n := range 3 {
		trans, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 2*time.Second, io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		home := filepath.Join(dir, fmt.Sprint(n))
		if err := os.MkdirAll(home, 0o700); err != nil {
			b.Fatal(err)
		}
		store, err := raftboltdb.New(raftboltdb.Options{
			Path:        filepath.Join(home, "raft.db"),
			BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		})
		if err != nil {
			b.Fatal(err)
		}
		snaps, err := raft.NewFileSnapshotStore(home, 2, io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		conf := raft.DefaultConfig()
		conf.LocalID = raft.ServerID(fmt.Sprint(n))
		conf.Logger = hclog.NewNullLogger()
		parts = append(parts, part{conf, trans, store, snaps})
		servers = append(servers, raft.Server{ID: conf.LocalID, Address: trans.LocalAddr()})
	}
	for _, p := range parts {
		cache, err := raft.NewLogCache(1024, p.store)
		if err != nil {
			b.Fatal(err)
		}
		r, err := raft.NewRaft(p.conf, discardFSM{}, cache, p.store, p.snaps, p.trans)
		if err != nil {
			b.Fatal(err)
		}
		nodes = append(nodes, r)
		b.Cleanup(func() { r.Shutdown().Error(); p.trans.Close(); p.store.Close() })
	}
	if err := nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), clustertest.Patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, r := range nodes {
			if r.State() == raft.Leader {
				return r
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatal("the bare raft cluster elects nobody")
		}
	}
}
