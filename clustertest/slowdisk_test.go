package clustertest_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster/cluster/logstore"
	"github.com/muster-registry/muster/clustertest"
)

// TestSlowDisksShedRegistrations: while every write to every disk takes 200 ms and far
// more is registered than that allows, registrations are told to come again, on every
// node, while instances beat, leave and do not expire.
func TestSlowDisksShedRegistrations(t *testing.T) {
	c := clustertest.New(t, 3, clustertest.Profile("slow"))
	for _, m := range c.Members {
		m.Faults.Log = &logstore.Faults{}
		m.Start()
	}
	c.WaitReady()
	leader := c.Leader()
	var beating []string
	for n := range 60 {
		leader.MustDo("PUT", fmt.Sprintf("/v1/services/fleet/instances/i-%d", n), `{"address":"10.0.0.5","port":80,"ttl":"5m"}`, 201)
		beating = append(beating, fmt.Sprintf(`{"service":"fleet","id":"i-%d"}`, n))
	}
	for _, m := range c.Members {
		m.Faults.Log.Delay(200 * time.Millisecond)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for n := range 24 {
		wg.Go(func() { registerWithoutPause(ctx, c.Members[n%3], n) })
	}
	left := 0
	for _, m := range c.Members {
		c.Wait("a registration to be shed on "+m.Name, func() bool {
			resp, text, err := m.Request("PUT", "/v1/services/web/instances/one", body, nil)
			if err != nil || resp.StatusCode != 503 {
				return false
			}
			after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
			if err != nil || after < 1 || after > 5 || !strings.Contains(text, `"code":"overloaded"`) {
				t.Fatalf("%s: %v %s", m.Name, resp.Header, text)
			}
			return true
		})
		// All the while, and with the backlog before it. On a busy machine a leader may
		// stumble, and it takes more than one try.
		c.Wait("heartbeats through "+m.Name, func() bool {
			status, text, err := m.Do("POST", "/v1/heartbeats", `{"instances":[`+strings.Join(beating[left:], ",")+`]}`)
			return err == nil && status == 200 && strings.Contains(text, `"unknown":[]`)
		})
		c.Wait("a deregistration through "+m.Name, func() bool {
			status, _, err := m.Do("DELETE", fmt.Sprintf("/v1/services/fleet/instances/i-%d", left), "")
			return err == nil && status == 204
		})
		left++
	}
	if n := metric(t, leader, "muster_cluster_shed_operations_total") + metric(t, leader, "muster_httpapi_shed_total"); n == 0 {
		t.Error("nothing is counted as shed")
	}
	stop()
	wg.Wait()
	for _, m := range c.Members {
		m.Faults.Log.Delay(0)
	}
	for _, m := range c.Members {
		c.Wait("registrations through "+m.Name, func() bool {
			status, _, err := m.Do("PUT", "/v1/services/web/instances/one", body)
			return err == nil && status < 300
		})
	}
	page := leader.MustDo("GET", "/v1/services/fleet?consistency=linearizable", "", 200)
	if got := strings.Count(page, `"routable":true`); got != 60-left {
		t.Errorf("%d of the fleet are left, want %d", got, 60-left)
	}
}

// registerWithoutPause sends batch after batch, whatever it is told.
func registerWithoutPause(ctx context.Context, m *clustertest.Member, stream int) {
	var items []string
	for n := range 500 {
		items = append(items, fmt.Sprintf(`{"service":"bulk-%d","id":"i-%d","address":"10.0.0.5","port":80,"ttl":"none"}`, stream, n))
	}
	batch := `{"instances":[` + strings.Join(items, ",") + `]}`
	for ctx.Err() == nil {
		if _, _, err := m.Request("POST", "/v1/batch/register", batch, nil); err != nil {
			return
		}
	}
}
