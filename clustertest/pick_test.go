package clustertest_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
	"github.com/muster-registry/muster/clustertest"
)

// picking is a cluster that picks are asked of.
type picking struct {
	*clustertest.Cluster
	t *testing.T
}

// register registers instances that stay until they are taken away.
func (p *picking) register(service string, ids ...string) {
	p.t.Helper()
	var items []string
	for n, id := range ids {
		items = append(items, fmt.Sprintf(`{"service":%q,"id":%q,"address":"10.0.0.%d","port":8080,"ttl":"none"}`, service, id, n+1))
	}
	var text string
	p.Wait("all to be registered", func() bool { // some may be refused while the leader changes
		text = p.Members[0].MustDo("POST", "/v1/batch/register", `{"instances":[`+strings.Join(items, ",")+`]}`, 200)
		return strings.Contains(text, `"refused":0`)
	})
	p.everywhere(service, p.index(text))
}

func (p *picking) index(text string) string {
	p.t.Helper()
	var v struct{ Index uint64 }
	clustertest.MustDecode(p.t, text, &v)
	return fmt.Sprint(v.Index)
}

// everywhere waits until all nodes show what was written at an index.
func (p *picking) everywhere(service, index string) {
	p.t.Helper()
	for _, m := range p.Members {
		if m.Running() {
			m.MustDo("GET", "/v1/services/"+service+"?min_index="+index, "", 200)
		}
	}
}

// change sends a write whose answer has no body, and waits until all nodes have it.
func (p *picking) change(method, service, path, body string) {
	p.t.Helper()
	resp, text, err := p.Members[0].Request(method, "/v1/services/"+service+path, body, nil)
	if err != nil || resp.StatusCode >= 300 {
		p.t.Fatalf("%s %s: %v %s", method, path, err, text)
	}
	p.everywhere(service, resp.Header.Get("Muster-Index"))
}

// pick picks once.
func (p *picking) pick(m *clustertest.Member, service, query string) muster.Pick {
	p.t.Helper()
	var got muster.Pick
	clustertest.MustDecode(p.t, m.MustDo("GET", "/v1/services/"+service+"/pick"+query, "", 200), &got)
	return got
}

// picks picks n times and counts the instances.
func (p *picking) picks(m *clustertest.Member, service, query string, n int) map[string]int {
	p.t.Helper()
	got := map[string]int{}
	for range n {
		got[p.pick(m, service, query).Instance.ID]++
	}
	return got
}

// use picks n times with a ticket, and reports on each what well says of it.
func (p *picking) use(m *clustertest.Member, service string, n int, well func(id string) bool) map[string]int {
	p.t.Helper()
	got := map[string]int{}
	for range n {
		var a muster.Pick
		clustertest.MustDecode(p.t, m.MustDo("POST", "/v1/services/"+service+"/pick", "", 200), &a)
		got[a.Instance.ID]++
		outcome := "success"
		if !well(a.Instance.ID) {
			outcome = "failure"
		}
		m.MustDo("POST", "/v1/picks/"+a.Ticket, fmt.Sprintf(`{"outcome":%q,"latency":"5ms"}`, outcome), http.StatusNoContent)
	}
	return got
}

// stats is what a node knows of a service.
func (p *picking) stats(m *clustertest.Member, service string) balancer.Stats {
	p.t.Helper()
	var got struct {
		Node string
		balancer.Stats
	}
	clustertest.MustDecode(p.t, m.MustDo("GET", "/v1/services/"+service+"?view=balancer", "", 200), &got)
	if got.Node != m.Node().ID() {
		p.t.Errorf("%s says it is %q", m.Name, got.Node)
	}
	return got.Stats
}

func (p *picking) of(m *clustertest.Member, service, id string) balancer.InstanceStats {
	p.t.Helper()
	for _, i := range p.stats(m, service).Instances {
		if i.ID == id {
			return i
		}
	}
	p.t.Fatalf("%s knows nothing of %s/%s", m.Name, service, id)
	return balancer.InstanceStats{}
}

// TestPick asks three nodes for instances, as a user would.
func TestPick(t *testing.T) {
	c := clustertest.Start(t, 3)
	all := &picking{Cluster: c, t: t}
	all.register("warm", "old") // of some age when slow start is looked at
	begun := time.Now()
	for _, try := range []struct {
		name string
		do   func(*picking)
	}{
		{"a sick instance is avoided everywhere", trySick},
		{"an instance that healed comes back", tryHealed},
		{"at most a part is ejected", tryCap},
		{"too few are well", tryPanic},
		{"draining ends picks at once", tryDrain},
		{"suspects are the last resort", trySuspects},
		{"slow start", func(p *picking) { trySlowStart(p, begun) }},
		{"tickets of other nodes", tryTickets}, // ends a node
	} {
		if !t.Run(try.name, func(t *testing.T) { try.do(&picking{Cluster: c, t: t}) }) {
			return
		}
	}
}

// trySick: an instance fails every other request that node 1 sends it. It loses its
// share there, and is avoided by node 3, which nobody told.
func trySick(p *picking) {
	p.register("web", "web-1", "web-2", "web-3", "web-4")
	p.change("PUT", "web", "/settings", `{"ejection_time":"5m"}`)
	first, third := p.Members[0], p.Members[2]
	tries := 0
	well := func(id string) bool {
		if id == "web-2" {
			tries++
		}
		return id != "web-2" || tries%2 == 0
	}
	before := p.use(first, "web", 50, well)
	if got := p.use(first, "web", 100, well); got["web-2"] != 0 {
		p.t.Errorf("after %d of 50 picks, half of them failed, it got %d of 100", before["web-2"], got["web-2"])
	}
	for _, m := range p.Members {
		p.Wait(m.Name+" to hear of it", func() bool { return p.of(m, "web", "web-2").Ejected })
	}
	if got := p.picks(third, "web", "", 90); got["web-2"] != 0 || len(got) != 3 {
		p.t.Errorf("node 3 picks %v", got)
	}
	for _, strategy := range balancer.Strategies() {
		for k := range 20 {
			if got := p.pick(third, "web", fmt.Sprintf("?key=k%d&strategy=%s", k, strategy.Name())); got.Instance.ID == "web-2" || got.Panic {
				p.t.Errorf("%s picks %s, panic %v", strategy.Name(), got.Instance.ID, got.Panic)
			}
		}
	}
	// What the registry says of it stays as it is.
	var v muster.View
	clustertest.MustDecode(p.t, third.MustDo("GET", "/v1/services/web", "", 200), &v)
	if i := v.Find("web-2"); i.Status != muster.StatusUp || !i.Routable || i.Suspect {
		p.t.Errorf("it is shown as %+v", i)
	}
	for _, m := range p.Members {
		page := m.MustDo("GET", "/metrics", "", 200)
		if !strings.Contains(page, "muster_balancer_ejected_instances 1\n") {
			p.t.Errorf("%s: no metric says that one is ejected", m.Name)
		}
	}
}

// tryHealed: an ejected instance is tried again once its time is over, and gets its
// share back on all nodes.
func tryHealed(p *picking) {
	p.register("api", "api-1", "api-2", "api-3")
	p.change("PUT", "api", "/settings", `{"ejection_time":"1s"}`)
	first, third := p.Members[0], p.Members[2]
	for p.of(first, "api", "api-1").State == balancer.Closed {
		p.use(first, "api", 10, func(id string) bool { return id != "api-1" })
	}
	for _, m := range p.Members {
		p.Wait(m.Name+" to let it in again", func() bool {
			p.use(first, "api", 20, func(string) bool { return true })
			return p.of(m, "api", "api-1").State == balancer.Closed
		})
	}
	if got := p.picks(third, "api", "", 30); got["api-1"] != 10 {
		p.t.Errorf("after it healed node 3 picks %v", got)
	}
}

// tryCap: when all fail, half of them stay.
func tryCap(p *picking) {
	ids := []string{"a", "b", "c", "d"}
	p.register("cap", ids...)
	p.change("PUT", "cap", "/settings", `{"ejection_time":"5m"}`)
	for _, id := range ids {
		p.Members[1].MustDo("POST", "/v1/services/cap/instances/"+id+"/outcomes", `{"failures":9}`, 204)
	}
	for _, m := range p.Members {
		p.Wait(m.Name+" to hear of all four", func() bool {
			return !slices.ContainsFunc(p.stats(m, "cap").Instances, func(i balancer.InstanceStats) bool { return i.State == balancer.Closed })
		})
		st := p.stats(m, "cap")
		if st.Ejected != 2 || st.Pickable != 2 || st.Panic {
			p.t.Errorf("%s: of 4 that fail %d are ejected, %d pickable, panic %v", m.Name, st.Ejected, st.Pickable, st.Panic)
		}
		if got := p.picks(m, "cap", "", 20); len(got) != 2 {
			p.t.Errorf("%s picks %v", m.Name, got)
		}
	}
}

// tryPanic: with fewer than half of the service well, picks come from all that may
// be alive, the ejected too, and say so; never from those in maintenance, draining
// or of weight 0.
func tryPanic(p *picking) {
	p.register("few", "a", "b", "c", "d", "draining", "maintained")
	third := p.Members[2]
	p.change("PUT", "few", "/instances/weightless", `{"address":"10.0.0.9","port":8080,"ttl":"none","weight":0}`)
	p.change("PUT", "few", "/instances/draining/override", `{"status":"draining"}`)
	p.change("PUT", "few", "/instances/maintained/override", `{"status":"maintenance"}`)
	p.change("PUT", "few", "/settings", `{"max_ejected":100,"ejection_time":"5m"}`)
	if got := p.pick(third, "few", ""); got.Panic {
		p.t.Errorf("with 4 of 7 that are well: %+v", got)
	}
	for _, id := range []string{"a", "b"} {
		p.Members[0].MustDo("POST", "/v1/services/few/instances/"+id+"/outcomes", `{"failures":9}`, 204)
	}
	p.Wait("node 3 to panic", func() bool { return p.pick(third, "few", "").Panic })
	got := p.picks(third, "few", "", 40)
	if ids := slices.Sorted(maps.Keys(got)); !slices.Equal(ids, []string{"a", "b", "c", "d"}) {
		p.t.Errorf("in a panic it picks %v", got)
	}
	p.change("PUT", "few", "/settings", `{"max_ejected":100,"panic_threshold":0,"ejection_time":"5m"}`)
	got = p.picks(third, "few", "", 40)
	if ids := slices.Sorted(maps.Keys(got)); !slices.Equal(ids, []string{"c", "d"}) {
		p.t.Errorf("where panics are turned off it picks %v", got)
	}
}

// tryDrain: what drains is not picked by whoever knows of it, and when all do the
// answer says why there is none.
func tryDrain(p *picking) {
	p.register("drain", "a", "b")
	third := p.Members[2]
	p.change("PUT", "drain", "/instances/a/override", `{"status":"draining"}`)
	if got := p.picks(third, "drain", "", 20); got["a"] != 0 {
		p.t.Errorf("with a draining it picks %v", got)
	}
	p.change("PUT", "drain", "/instances/b/override", `{"status":"draining"}`)
	resp, text, err := third.Request("POST", "/v1/services/drain/pick", "", nil)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" ||
		!strings.Contains(text, `"no_instance"`) || !strings.Contains(text, "2 draining") {
		p.t.Errorf("with both draining: %v %v %s", err, resp, text)
	}
	p.change("DELETE", "drain", "/instances/b/override", "")
	resp, text, err = third.Request("GET", "/v1/services/drain/pick", "", http.Header{"Accept": {"text/plain"}})
	if err != nil || text != "10.0.0.2:8080\n" {
		p.t.Errorf("with b back: %v %v %q", err, resp, text)
	}
}

// trySuspects: what the governor holds is not picked while there is anybody else.
func trySuspects(p *picking) {
	first, third := p.Members[0], p.Members[2]
	var items, well []string
	for n := range 12 {
		items = append(items, fmt.Sprintf(`{"service":"shaky","id":"silent-%02d","address":"10.0.0.5","port":%d,"ttl":"2s"}`, n, 8000+n))
		well = append(well, fmt.Sprintf("well-%02d", n))
	}
	p.register("shaky", well...)
	p.change("PUT", "shaky", "/settings", `{"panic_threshold":0}`)
	first.MustDo("POST", "/v1/batch/register", `{"instances":[`+strings.Join(items, ",")+`]}`, 200)
	p.Wait("the governor to hold the silent ones", func() bool {
		var v muster.View
		clustertest.MustDecode(p.t, third.MustDo("GET", "/v1/services/shaky", "", 200), &v)
		return v.Protected
	})
	for id := range p.picks(third, "shaky", "", 60) {
		if !strings.HasPrefix(id, "well-") {
			p.t.Errorf("with 12 that are well it picks %s", id)
		}
	}
	for _, id := range well {
		p.change("DELETE", "shaky", "/instances/"+id, "")
	}
	if got := p.pick(third, "shaky", ""); !got.Instance.Suspect || got.Panic {
		p.t.Errorf("with nobody else it picks %+v, panic %v", got.Instance, got.Panic)
	}
}

// trySlowStart: an instance that has just started gets little at first, and its full
// share by and by.
func trySlowStart(p *picking, begun time.Time) {
	const length = 8 * time.Second
	third := p.Members[2]
	p.Wait("the old instance to be old enough", func() bool { return time.Since(begun) > length+time.Second })
	p.change("PUT", "warm", "/settings", fmt.Sprintf(`{"strategy":"weighted_round_robin","slow_start":%q}`, length))
	start := time.Now()
	p.change("PUT", "warm", "/instances/new", `{"address":"10.0.0.2","port":8080,"ttl":"none"}`)
	got := p.picks(third, "warm", "", 40)
	// At half of the ramp it has half the weight, and a third of the picks.
	switch took := time.Since(start); {
	case took > length/2:
		p.t.Logf("40 picks took %s: too slow to see the ramp", took)
	case got["new"] == 0 || got["new"] > 16:
		p.t.Errorf("within %s of its start it got %v of 40", took, got)
	}
	p.Wait("it to have its full share", func() bool { return p.picks(third, "warm", "", 20)["new"] == 10 })
}

// tryTickets: a report may be sent to any node, once; a node that is gone has
// forgotten its tickets.
func tryTickets(p *picking) {
	p.register("tick", "a")
	first, third := p.Members[0], p.Members[2]
	ticket := func() string {
		resp, _, err := first.Request("POST", "/v1/services/tick/pick?ticket_ttl=10m", "", nil)
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Muster-Ticket") == "" {
			p.t.Fatalf("no ticket: %v %v", resp, err)
		}
		return resp.Header.Get("Muster-Ticket")
	}
	id, other := ticket(), ticket()
	if got := p.of(first, "tick", "a"); got.InFlight != 2 {
		p.t.Errorf("with two tickets out: %+v", got)
	}
	const report = `{"outcome":"success","latency":"20ms"}`
	third.MustDo("POST", "/v1/picks/"+id, report, 204)
	if got := p.of(first, "tick", "a"); got.InFlight != 1 || got.Successes != 1 || got.Latency != muster.Duration(20*time.Millisecond) {
		p.t.Errorf("after a report on another node: %+v", got)
	}
	unknown := func(m *clustertest.Member, id string) string {
		p.t.Helper()
		text := m.MustDo("POST", "/v1/picks/"+id, report, 404)
		if !strings.Contains(text, `"unknown_ticket"`) {
			p.t.Errorf("%s on %s: %s", id, m.Name, text)
		}
		return text
	}
	unknown(third, id)
	unknown(first, id)
	unknown(third, first.Node().ID()+".NEVERGIVEN")
	unknown(third, "nobody.NEVERGIVEN")
	unknown(third, "nothing")
	tryNoise(p)
	first.Kill()
	p.Leader()
	if text := unknown(third, other); !strings.Contains(text, "outcomes") {
		p.t.Errorf("the answer does not say what to do instead: %s", text)
	}
}

// tryNoise: what no balancer would say to another is refused, and harms nobody.
func tryNoise(p *picking) {
	first, third := p.Members[0], p.Members[2]
	to := first.Node().ID()
	for _, body := range []string{"", "\xff", "\x0a\xff", "\x0a\x02ab\x18", "\x12\x01\x01", "\x2b"} {
		if _, err := third.Node().Cluster().Call(p.t.Context(), to, "redeem", []byte(body)); err == nil {
			p.t.Errorf("a report of %q was taken", body)
		}
	}
	p.Wait("noise to be refused", func() bool {
		third.Node().Cluster().SendGossip(1, to, []byte("noise"))
		for line := range strings.SplitSeq(first.MustDo("GET", "/metrics", "", 200), "\n") {
			if n, ok := strings.CutPrefix(line, `muster_balancer_packets_total{direction="refused"} `); ok {
				return n != "0"
			}
		}
		return false
	})
}
